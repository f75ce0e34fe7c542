//! What a lying holder could serve if it wanted to: the right manifest and chunks, and wrong ones that look like them.

use quarta_protocols::content::{ContentKey, Geometry, Manifest, chunk_hash};
use quarta_protocols::ids::ContentId;

/// One content, sealed as its owner sealed it, and the same file sealed under another key.
#[derive(Debug, Clone)]
pub(super) struct Goods {
    content: ContentId,
    pub(super) manifest: Vec<u8>,
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) other_manifest: Vec<u8>,
    pub(super) other_chunks: Vec<Vec<u8>>,
}

impl Goods {
    /// Seals a file; none where it is too large for any content.
    pub(super) fn seal(plain: &[u8], key: &ContentKey) -> Option<Self> {
        let mut other = *key.as_bytes();
        other[0] ^= 1;
        let (manifest, chunks) = seal(plain, key)?;
        let (other_manifest, other_chunks) = seal(plain, &ContentKey::from_bytes(other))?;
        Some(Self {
            content: manifest.id(),
            manifest: manifest.to_bytes(),
            chunks,
            other_manifest: other_manifest.to_bytes(),
            other_chunks,
        })
    }

    /// The content that can be served.
    pub(super) const fn content(&self) -> ContentId {
        self.content
    }
}

fn seal(plain: &[u8], key: &ContentKey) -> Option<(Manifest, Vec<Vec<u8>>)> {
    let geometry = Geometry::for_size(plain.len() as u64).ok()?;
    let cipher = key.cipher();
    let chunks: Vec<Vec<u8>> = (0..geometry.chunks())
        .map(|index| {
            let start = usize::try_from(geometry.offset(index)).unwrap_or(usize::MAX);
            let mut chunk = plain[start..start + geometry.plain_len(index)].to_vec();
            cipher.seal(index, &mut chunk);
            chunk
        })
        .collect();
    let hashes = chunks.iter().map(|chunk| chunk_hash(chunk)).collect();
    Some((Manifest::new(geometry, hashes).ok()?, chunks))
}
