use std::{fs, os::unix::fs::symlink};

use quarta_protocols::{
    content::{ContentKey, Geometry, chunk_hash},
    messages::chunk::Abort,
};

use super::*;
use crate::serving::Chunks;

/// A content of three chunks.
const SIZE: usize = 2 * (256 << 10) + 5;

struct Goods {
    manifest: Manifest,
    sealed: Vec<Vec<u8>>,
}

fn goods(seed: u8) -> Goods {
    let geometry = Geometry::for_size(SIZE as u64).unwrap();
    let cipher = ContentKey::from_bytes([seed; 32]).cipher();
    let sealed: Vec<Vec<u8>> = (0..geometry.chunks())
        .map(|index| {
            let mut chunk = vec![seed; geometry.plain_len(index)];
            cipher.seal(index, &mut chunk);
            chunk
        })
        .collect();
    let hashes = sealed.iter().map(|chunk| chunk_hash(chunk)).collect();
    Goods { manifest: Manifest::new(geometry, hashes).unwrap(), sealed }
}

fn open(data: &Path) -> (Arc<Vault>, Vec<Found>) {
    let (vault, found) = Vault::open(data).unwrap();
    (Arc::new(vault), found)
}

fn begin(vault: &Arc<Vault>, goods: &Goods) -> Filling {
    Filling::begin(vault, goods.manifest.clone(), || true).unwrap()
}

fn keep(vault: &Arc<Vault>, goods: &Goods) {
    let filling = begin(vault, goods);
    for (index, chunk) in (0..).zip(&goods.sealed) {
        assert!(filling.write(index, chunk).unwrap());
    }
    filling.finish(|| true).unwrap();
}

fn names(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join(FOLDER)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn found(goods: &Goods, whole: bool) -> Found {
    Found { content: goods.manifest.id(), size_bytes: SIZE as u64, whole }
}

#[test]
fn a_replica_is_there_once_it_is_whole_and_gives_back_the_sealed_bytes_also_after_a_restart() {
    let base = tempfile::tempdir().unwrap();
    let (vault, nothing) = open(base.path());
    assert_eq!(nothing, []);
    let goods = goods(1);
    let content = goods.manifest.id();
    let filling = begin(&vault, &goods);
    for index in [2, 0] {
        assert!(filling.write(index, &goods.sealed[index as usize]).unwrap());
    }
    assert!(filling.finish(|| true).is_err(), "a chunk is missing");
    assert!(vault.replica(&content).is_err());
    assert!(filling.write(1, &goods.sealed[1]).unwrap());
    filling.finish(|| true).unwrap();
    for vault in [vault, open(base.path()).0] {
        let replica = vault.replica(&content).unwrap();
        assert_eq!(replica.manifest(), &goods.manifest);
        for (index, chunk) in (0..).zip(&goods.sealed) {
            assert_eq!(replica.read(index).unwrap(), chunk[..]);
        }
        assert_eq!(replica.read(3), Err(Abort::Unreadable), "no such chunk");
    }
    assert_eq!(open(base.path()).1, [found(&goods, true)]);
}

#[test]
fn a_wrong_chunk_is_not_kept() {
    let base = tempfile::tempdir().unwrap();
    let (vault, _) = open(base.path());
    let goods = goods(1);
    let filling = begin(&vault, &goods);
    assert!(!filling.write(0, &goods.sealed[1]).unwrap());
    assert!(!filling.write(3, &goods.sealed[0]).unwrap());
    assert!(!filling.write(2, &goods.sealed[2][1..]).unwrap());
    assert!(filling.verified().is_empty());
}

#[test]
fn an_interrupted_replica_goes_on_with_the_chunks_that_are_right_and_no_other() {
    let base = tempfile::tempdir().unwrap();
    let goods = goods(1);
    let filling = begin(&open(base.path()).0, &goods);
    filling.write(0, &goods.sealed[0]).unwrap();
    filling.write(1, &goods.sealed[1]).unwrap();
    drop(filling);
    // A power loss took a part of a chunk.
    let part = base.path().join(FOLDER).join(format!("{}.part", goods.manifest.id()));
    let mut bytes = fs::read(&part).unwrap();
    bytes[7] ^= 1;
    fs::write(&part, bytes).unwrap();
    let (vault, there) = open(base.path());
    assert_eq!(there, [found(&goods, false)]);
    assert_eq!(vault.manifest(&goods.manifest.id()), Some(goods.manifest.clone()));
    let filling = begin(&vault, &goods);
    assert_eq!(filling.verified().to_wire(), [0b0100_0000]);
}

#[test]
fn a_flipped_byte_is_never_read_and_only_its_chunk_is_wanted_again() {
    let base = tempfile::tempdir().unwrap();
    let (vault, _) = open(base.path());
    let goods = goods(1);
    let content = goods.manifest.id();
    keep(&vault, &goods);
    let path = base.path().join(FOLDER).join(format!("{content}.sealed"));
    let mut bytes = fs::read(&path).unwrap();
    let at = goods.sealed[0].len() + 3;
    bytes[at] ^= 0x40;
    fs::write(&path, bytes).unwrap();
    let replica = vault.replica(&content).unwrap();
    assert_eq!(replica.read(1), Err(Abort::Changed));
    assert!(replica.read(0).is_ok() && replica.read(2).is_ok());
    vault.demote(&content).unwrap();
    assert!(vault.replica(&content).is_err(), "not while it is repaired");
    let filling = begin(&vault, &goods);
    assert_eq!(filling.verified().to_wire(), [0b1010_0000]);
    filling.write(1, &goods.sealed[1]).unwrap();
    filling.finish(|| true).unwrap();
    assert_eq!(vault.replica(&content).unwrap().read(1).unwrap(), goods.sealed[1][..]);
}

#[test]
fn what_is_dropped_is_gone_and_what_was_finishing_meanwhile_does_not_come_back() {
    let base = tempfile::tempdir().unwrap();
    let (vault, _) = open(base.path());
    let (kept, dropped) = (goods(1), goods(2));
    keep(&vault, &kept);
    let filling = begin(&vault, &dropped);
    for (index, chunk) in (0..).zip(&dropped.sealed) {
        filling.write(index, chunk).unwrap();
    }
    vault.remove(&dropped.manifest.id()).unwrap();
    assert!(matches!(filling.finish(|| false), Err(VaultError::Unwanted)));
    assert!(filling.finish(|| true).is_err(), "its file is gone");
    vault.remove(&dropped.manifest.id()).unwrap();
    assert!(matches!(Filling::begin(&vault, dropped.manifest, || false), Err(VaultError::Unwanted)));
    let content = kept.manifest.id();
    assert_eq!(names(base.path()), [format!("{content}.manifest"), format!("{content}.sealed")]);
}

#[test]
fn whatever_cannot_be_proven_to_be_a_replica_is_swept_away_at_the_start() {
    let base = tempfile::tempdir().unwrap();
    let (vault, _) = open(base.path());
    let (whole, cut, forged, alone) = (goods(1), goods(2), goods(3), goods(4));
    for goods in [&whole, &cut, &forged] {
        keep(&vault, goods);
    }
    drop(begin(&vault, &alone));
    let folder = base.path().join(FOLDER);
    let path = |goods: &Goods, ending: &str| folder.join(format!("{}.{ending}", goods.manifest.id()));
    fs::OpenOptions::new().write(true).open(path(&cut, "sealed")).unwrap().set_len(1000).unwrap();
    fs::write(path(&forged, "manifest"), whole.manifest.to_bytes()).unwrap();
    fs::remove_file(path(&alone, "part")).unwrap();
    fs::write(folder.join("stray"), "x").unwrap();
    fs::write(folder.join(format!("{}.draft", whole.manifest.id())), "x").unwrap();
    fs::write(base.path().join("outside"), "mine").unwrap();
    symlink(base.path().join("outside"), folder.join("link.sealed")).unwrap();
    let (vault, there) = open(base.path());
    let mut expected = [found(&whole, true), found(&cut, false)];
    expected.sort_by_key(|found| found.content);
    assert_eq!(there, expected);
    assert_eq!(names(base.path()).len(), 4, "{:?}", names(base.path()));
    assert_eq!(fs::read_to_string(base.path().join("outside")).unwrap(), "mine");
    // What was cut off is repaired and not believed.
    assert!(begin(&vault, &cut).verified().is_empty());
}

#[test]
fn a_vault_that_is_a_link_is_not_followed() {
    let base = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), base.path().join(FOLDER)).unwrap();
    assert!(matches!(Vault::open(base.path()), Err(VaultError::Disk { .. })));
}

#[test]
fn an_empty_file_is_kept_too() {
    let base = tempfile::tempdir().unwrap();
    let (vault, _) = open(base.path());
    let empty = {
        let geometry = Geometry::for_size(0).unwrap();
        let mut chunk = Vec::new();
        ContentKey::from_bytes([7; 32]).cipher().seal(0, &mut chunk);
        Goods { manifest: Manifest::new(geometry, vec![chunk_hash(&chunk)]).unwrap(), sealed: vec![chunk] }
    };
    keep(&vault, &empty);
    assert_eq!(vault.replica(&empty.manifest.id()).unwrap().read(0).unwrap().len(), 16);
}
