//! The root key as a file: read where an operator keeps it, and moved off the machine of a super-peer.
//!
//! Whoever has it can admit super-peers, and through them anybody. It is made in the first super-peer's data folder and
//! belongs offline: [`export`] moves it out, and the commands that need it read it from where it is then, sign, and hand
//! only what was signed to the daemon.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use libp2p::identity::Keypair;
use quarta_daemon::{
    cli::{ExitCode, Failure},
    data_dir::{DataDir, Role},
    identity::{self, Identity, IdentityError},
};
use quarta_protocols::credentials::Trust;
use zeroize::Zeroizing;

use crate::setup::ROOT_KEY_FILE;

/// The longest file that can be a key, in bytes; an Ed25519 key takes 68.
const KEY_MAX_BYTES: u64 = 1024;

/// Reads the root key of a network from a file that only its owner may read.
///
/// # Errors
/// A [`Failure`] with cause and next step; `what` is as in "cannot approve sp2".
pub fn read(path: &Path, network: &str, what: &str) -> Result<Keypair, Failure> {
    let fail = |why: String, next: &str| Failure::new(what, why, next).code(ExitCode::NotPermitted);
    let shown = path.display();
    let (key, mode) = read_key(path).map_err(|error| {
        fail(format!("the root key cannot be read from {shown}: {error}"), "name the file that holds the key")
    })?;
    if mode & 0o077 != 0 {
        return Err(fail(
            format!("others on this machine may read {shown} (mode {mode:04o})"),
            "run `chmod 600` on it, and think whether somebody may have copied it",
        ));
    }
    let trust = key
        .as_ref()
        .and_then(|key| Some((key.clone(), Trust::in_root(key.public().try_into_ed25519().ok()?))))
        .filter(|(_, trust)| trust.network.to_string() == network);
    trust.map(|(key, _)| key).ok_or_else(|| {
        fail(
            format!("{shown} does not hold the root key of this network"),
            "name the file that holds the key",
        )
    })
}

/// Moves the root key out of a data folder whose daemon does not run, and gives the network it is of.
///
/// The new file is written, synced and read back before the old one goes. An interruption leaves both.
///
/// # Errors
/// A [`Failure`] with cause and next step; the key is then still in the data folder.
pub fn export(data: &Path, to: &Path) -> Result<String, Failure> {
    let what = "cannot export the root key";
    let dir = DataDir::open(data, Role::Superpeer)?;
    // A running daemon has the key in its memory, where no export takes it away.
    let _lock = dir.lock()?;
    let network = Identity::load(&dir).map_err(|e| Failure::told(&e))?.trust.network.to_string();
    let key = match identity::load_key(dir.folder(), ROOT_KEY_FILE) {
        Ok(key) => key,
        Err(IdentityError::Folder(error)) if error.is_not_found() => {
            let why = "it does not lie on this machine";
            return Err(Failure::new(what, why, "run the command where `status` says that it lies")
                .code(ExitCode::NotFound));
        }
        Err(error) => return Err(Failure::told(&error)),
    };
    let failed = |error: io::Error| {
        let next = match error.kind() {
            io::ErrorKind::AlreadyExists => "name a file that does not exist yet",
            _ => "name a file on a disk that can be written, and is kept offline afterwards",
        };
        Failure::new(what, format!("{}: {error}", to.display()), next)
    };
    if to
        .canonicalize()
        .ok()
        .or_else(|| to.parent()?.canonicalize().ok())
        .is_some_and(|to| data.canonicalize().is_ok_and(|data| to.starts_with(data)))
    {
        return Err(Failure::new(what, "the file is in the data folder itself", "name a file elsewhere")
            .code(ExitCode::Usage));
    }
    write_key(to, &key).map_err(failed)?;
    if let Err(failure) = read(to, &network, what) {
        // What was written is not the key; it must not pass for it.
        let _ = fs::remove_file(to);
        return Err(failure);
    }
    dir.folder().remove_private(ROOT_KEY_FILE).map_err(|e| Failure::told(&e))?;
    Ok(network)
}

fn write_key(path: &Path, key: &Keypair) -> io::Result<()> {
    let encoded = Zeroizing::new(key.to_protobuf_encoding().map_err(io::Error::other)?);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file
        // Whatever the umask says.
        .set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(&encoded))
        .and_then(|()| file.sync_all())
        .and_then(|()| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        });
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// A key file's content, if it is one, and its mode.
fn read_key(path: &Path) -> io::Result<(Option<Keypair>, u32)> {
    // Before the open: opening a fifo would wait for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(KEY_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok((Keypair::from_protobuf_encoding(&bytes).ok(), metadata.permissions().mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use quarta_protocols::names::MemberName;

    use super::*;
    use crate::setup::{self, Reach};

    fn superpeer(data: &Path) {
        let reach = Reach { listen: Vec::new(), external: Vec::new(), http: "127.0.0.1:0".parse().unwrap() };
        setup::init(data, &MemberName::new("sp1").unwrap(), reach).unwrap();
    }

    #[test]
    fn an_exported_key_is_where_it_was_told_and_nowhere_else() {
        let place = tempfile::tempdir().unwrap();
        let (data, to) = (place.path().join("sp1"), place.path().join("root.key"));
        superpeer(&data);
        let network = export(&data, &to).unwrap();
        assert!(!data.join(ROOT_KEY_FILE).exists());
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        let key = read(&to, &network, "cannot approve sp2").unwrap();
        let network_of_key = Trust::in_root(key.public().try_into_ed25519().unwrap()).network;
        assert_eq!(network_of_key.to_string(), network);
        let again = export(&data, &place.path().join("again.key")).unwrap_err();
        assert_eq!(again.exit_code(), ExitCode::NotFound);
    }

    #[test]
    fn an_export_that_cannot_be_written_leaves_the_key_where_it_is() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("sp1");
        superpeer(&data);
        let taken = place.path().join("letter.txt");
        fs::write(&taken, "mine").unwrap();
        for to in [taken.clone(), place.path().join("missing").join("root.key"), data.join("elsewhere.key")] {
            export(&data, &to).unwrap_err();
            assert!(data.join(ROOT_KEY_FILE).exists(), "{}", to.display());
        }
        assert_eq!(fs::read_to_string(taken).unwrap(), "mine");
        assert!(!data.join("elsewhere.key").exists());
    }

    #[test]
    fn a_foreign_readable_or_damaged_key_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let (data, to) = (place.path().join("sp1"), place.path().join("root.key"));
        superpeer(&data);
        let network = export(&data, &to).unwrap();
        let why = |network: &str| read(&to, network, "cannot approve sp2").unwrap_err().why().to_owned();
        assert!(why("another").contains("does not hold the root key of this network"));
        fs::set_permissions(&to, Permissions::from_mode(0o644)).unwrap();
        assert!(why(&network).contains("others on this machine may read"));
        fs::write(&to, "Dear reader").unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
        assert!(why(&network).contains("does not hold the root key of this network"));
        assert!(read(place.path(), &network, "x").unwrap_err().why().contains("not a regular file"));
    }
}
