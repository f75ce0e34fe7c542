//! Several nodes share files; every node finds all of them.

use super::DemoError;
use super::run::{Run, Shared};
use crate::api::NodeApi;
use crate::cluster::ClusterError;
use crate::original::{self, Original};
use crate::record::SharedFile;
use crate::wait::{Look, until};
use futures::future::try_join_all;
use quarta_daemon::cli::size;
use quarta_node::api::model as node;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a file that was shared may take to be listed everywhere.
const LISTED_DEADLINE: Duration = Duration::from_secs(20);
/// For how many files every node searches by a word of the name.
const SEARCHES_MAX: usize = 24;
/// Shorter texts are looked up as beginnings of names.
const WORD_MIN_LETTERS: usize = 3;
/// So much of a name is searched for where no word will do: within what a search takes, in any script.
const BEGINNING_LETTERS: usize = 50;

/// What of a listed file must be the same everywhere.
type Entry = (String, String, String, u64, Option<String>);

fn entry(file: &node::File) -> Entry {
    (file.id.clone(), file.name.clone(), file.owner.clone(), file.size_bytes, file.sha256.clone())
}

impl Run {
    /// Spreads the files over the nodes and shares them, every owner at once.
    pub(super) async fn share(&mut self, originals: Vec<Original>) -> Result<(), DemoError> {
        let nodes: Vec<NodeApi> = self.cluster()?.nodes().map(crate::cluster::Member::node).collect();
        let files = originals.len();
        let mut owned: Vec<Vec<Original>> = vec![Vec::new(); nodes.len()];
        for (index, original) in originals.into_iter().enumerate() {
            owned[index % nodes.len()].push(original);
        }
        self.journal.note(format!("{} nodes share {files} files", nodes.len().min(files)));
        let shared = nodes.iter().zip(owned).map(|(node, owned)| share_all(node, owned));
        let mut shared: Vec<Shared> = try_join_all(shared).await?.into_iter().flatten().collect();
        shared.sort_by_key(|shared| std::cmp::Reverse(shared.original.size_bytes));
        let wrong = shared.iter().find(|shared| {
            shared.file.sha256.as_deref() != Some(&*shared.sha256)
                || shared.file.size_bytes != shared.original.size_bytes
        });
        let found = match wrong {
            None => Ok(format!(
                "{files} files, {}",
                size(shared.iter().map(|shared| shared.original.size_bytes).sum())
            )),
            Some(wrong) => Err(wrong.file.name.clone()),
        };
        for shared in &shared {
            self.journal.shared(SharedFile {
                name: shared.file.name.clone(),
                owner: shared.file.owner.clone(),
                size_bytes: shared.original.size_bytes,
                sha256: shared.sha256.clone(),
            });
        }
        self.files = shared;
        Ok(self.journal.check("every shared file is listed with its original's size and SHA-256", found)?)
    }

    /// Waits until all nodes list the same files, all of them, and searches at each.
    pub(super) async fn search_everywhere(&mut self) -> Result<(), DemoError> {
        let expected: BTreeSet<Entry> = self.files.iter().map(|shared| entry(&shared.file)).collect();
        let nodes: Vec<NodeApi> = self.cluster()?.nodes().map(crate::cluster::Member::node).collect();
        let started = Instant::now();
        let listed = until(LISTED_DEADLINE, async || {
            for node in &nodes {
                match node.files("").await {
                    Ok(files) if files.iter().map(entry).collect::<BTreeSet<_>>() == expected => {}
                    Ok(files) => {
                        return Look::NotYet(format!("{} lists {} files", node.member(), files.len()));
                    }
                    Err(error) => return Look::failed(error),
                }
            }
            Look::Holds(())
        })
        .await;
        let found = match listed {
            Ok(((), at)) => Ok(format!(
                "{} nodes, {:.1} s after the last was shared",
                nodes.len(),
                (at - started).as_secs_f64()
            )),
            Err(late) => Err(late.to_string()),
        };
        self.journal.check("all nodes list the same files, and all of them", found)?;

        let mut searches = 0;
        let mut missed = None;
        for shared in self.files.iter().take(SEARCHES_MAX) {
            let word = longest_word(&shared.file.name);
            for node in &nodes {
                searches += 1;
                if !node.files(word).await?.iter().any(|file| file.id == shared.file.id) {
                    missed = Some(format!("{} at {} by `{word}`", shared.file.name, node.member()));
                }
            }
        }
        let found = missed.map_or_else(|| Ok(format!("{searches} searches")), Err);
        Ok(self.journal.check("every node finds each file by a word of its name", found)?)
    }
}

/// Shares `owned` at `node`, one after the other, and computes each original's SHA-256 meanwhile.
async fn share_all(node: &NodeApi, owned: Vec<Original>) -> Result<Vec<Shared>, DemoError> {
    let mut shared = Vec::with_capacity(owned.len());
    for original in owned {
        let path = original.path.clone();
        let hashing = tokio::task::spawn_blocking(move || original::sha256(&path));
        let file = node.add(&original.path, Some(original.name.clone())).await?;
        let failed = ClusterError::system(format!("read {}", original.path.display()));
        let sha256 = hashing.await?.map_err(failed)?;
        shared.push(Shared { original, sha256, file });
    }
    Ok(shared)
}

/// The longest word in the last part of a name, without its ending; where no word has the three letters that a search
/// within names needs, how the name begins.
fn longest_word(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let letters = |word: &&str| word.chars().count();
    let longest = stem.split(|c: char| !c.is_alphanumeric()).max_by_key(letters);
    longest.filter(|word| letters(word) >= WORD_MIN_LETTERS).unwrap_or_else(|| {
        let end = name.char_indices().nth(BEGINNING_LETTERS).map_or(name.len(), |(end, _)| end);
        &name[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_uses_the_words_that_a_person_would() {
        assert_eq!(longest_word("Peças 2026/Orçamento por filial.xlsx"), "Orçamento");
        assert_eq!(longest_word("sub/a b.txt"), "sub/a b.txt");
        assert_eq!(longest_word("…"), "…");
        assert_eq!(longest_word(&"é ".repeat(90)), "é ".repeat(25));
    }
}
