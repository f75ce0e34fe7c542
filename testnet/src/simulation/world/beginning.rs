//! What every schedule begins with.

use std::{path::Path, sync::LazyLock};

use quarta_superpeer::catalog::Catalog;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::simulation::cast::{START, START_MS, Who, cast};

/// A folder in memory, where there is one: a commit is synced, and nobody cuts the power of a simulation.
pub(in crate::simulation) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
        .expect("a temporary folder can be made")
}

/// The catalog of a super-peer at the beginning, as its file's bytes: all super-peers and nodes are members.
pub(super) fn template(who: Who) -> &'static [u8] {
    static TEMPLATES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(first_catalogs);
    &TEMPLATES[who.index()]
}

/// The first super-peer admits everybody, the others hear of it: each has a database of its own.
fn first_catalogs() -> Vec<Vec<u8>> {
    let dir = folder();
    let open = |who: Who| {
        let (path, key) = (dir.path().join(who.to_string()), who.identity().key.clone());
        Catalog::open(&path, cast().trust.clone(), key).expect("a new catalog opens")
    };
    let mut catalogs: Vec<Catalog> = Who::superpeers().map(open).collect();
    let (first, others) = catalogs.split_first_mut().expect("there are super-peers");
    let mut entries = Vec::new();
    for member in Who::all() {
        let identity = member.identity();
        if let Some(credential) = &identity.credential {
            let enrolment = identity.enrolment(credential.clone());
            let told = first.enrol(enrolment, START_MS).expect("the cast's members can be enrolled");
            entries.extend(told);
        }
    }
    let identity = Who::superpeer(0).identity();
    let credential = identity.credential.as_ref().expect("super-peers have credentials");
    let from = credential.verify(&cast().trust, &identity.peer, START).expect("it is valid at the beginning");
    for other in others {
        // Twice: what is stamped by a super-peer that comes later in the list is put off at first.
        for _ in 0..2 {
            other.take(&from, entries.clone(), START_MS).expect("a new catalog takes entries");
        }
    }
    // Closing them brings their logs into the files.
    drop(catalogs);
    let read = |who: Who| {
        let path = dir.path().join(who.to_string());
        // Drawn when a catalog is made; here the same in every process, so that a seed says everything.
        let store = [u8::try_from(who.index()).expect("the cast is small"); 16];
        let conn = Connection::open(&path).expect("a closed catalog opens");
        conn.execute("UPDATE catalog SET store = ?1", [store]).expect("a closed catalog can be written");
        conn.close().expect("what was written is in the file");
        std::fs::read(path).expect("a file can be read")
    };
    Who::superpeers().map(read).collect()
}
