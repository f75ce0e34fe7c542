//! How a browser gets in: a one-time link, and the session that it opens.
//!
//! A browser cannot send the bearer token when a person follows a link, and a token in an address would stay in its
//! history. So the machine's user has a *code* made over the daemon's socket; the first request that shows it within
//! [`CODE_LIFE`] gets a *session*, kept in a cookie that scripts cannot read and that other sites' pages cannot have
//! sent. Codes and sessions are 256 random bits, live in memory only, as hashes, are few, and end with the daemon: who
//! binds its port while it is down gets a cookie that opens nothing any more.
//!
//! Pure: the caller gives the time and the random texts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a link can be followed: long enough to paste it into another window.
pub(super) const CODE_LIFE: Duration = Duration::from_mins(5);

/// How long a session lasts: a working day.
pub(super) const SESSION_LIFE: Duration = Duration::from_hours(12);

/// Links that wait at once; the one that ends first gives way. A person needs one.
const CODES_MAX: usize = 8;

/// Sessions at once; the one that ends first gives way. A few people with a few browsers each.
const SESSIONS_MAX: usize = 32;

/// Codes and sessions, by the hash of their text.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    codes: Expiring,
    sessions: Expiring,
}

impl Sessions {
    /// Takes note of a code that may be shown once.
    pub(super) fn add_code(&mut self, now: Instant, code: &str) {
        self.codes.add(now, code, CODE_LIFE, CODES_MAX);
    }

    /// Opens `session` for who shows `code`. Whether it did; the code is of no use afterwards.
    pub(super) fn redeem(&mut self, now: Instant, code: &str, session: &str) -> bool {
        let valid = self.codes.remove(now, code);
        if valid {
            self.sessions.add(now, session, SESSION_LIFE, SESSIONS_MAX);
        }
        valid
    }

    /// Whether `session` is open.
    pub(super) fn is_open(&self, now: Instant, session: &str) -> bool {
        self.sessions.has(now, session)
    }

    /// Closes `session`.
    pub(super) fn close(&mut self, now: Instant, session: &str) {
        self.sessions.remove(now, session);
    }
}

/// Secrets with their ends. Looked up by hash, so that the time a look-up takes tells nothing about a secret.
#[derive(Debug, Default)]
struct Expiring(HashMap<[u8; 32], Instant>);

impl Expiring {
    fn add(&mut self, now: Instant, secret: &str, life: Duration, most: usize) {
        self.0.retain(|_, end| now < *end);
        while self.0.len() >= most {
            let Some(first) = self.0.iter().min_by_key(|(_, end)| **end).map(|(hash, _)| *hash) else {
                break;
            };
            self.0.remove(&first);
        }
        self.0.insert(hash(secret), now + life);
    }

    fn has(&self, now: Instant, secret: &str) -> bool {
        self.0.get(&hash(secret)).is_some_and(|end| now < *end)
    }

    fn remove(&mut self, now: Instant, secret: &str) -> bool {
        self.0.remove(&hash(secret)).is_some_and(|end| now < end)
    }
}

fn hash(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_and_only_for_a_while() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.add_code(now, "code");
        assert!(!sessions.redeem(now, "guess", "s0"));
        assert!(sessions.redeem(now, "code", "s1") && !sessions.redeem(now, "code", "s2"));
        assert!(sessions.is_open(now, "s1") && !sessions.is_open(now, "s2") && !sessions.is_open(now, ""));
        sessions.add_code(now, "late");
        assert!(!sessions.redeem(now + CODE_LIFE, "late", "s3"));
    }

    #[test]
    fn a_session_ends_by_itself_or_when_it_is_closed() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        for name in ["a", "b"] {
            sessions.add_code(now, name);
            assert!(sessions.redeem(now, name, name));
        }
        sessions.close(now, "a");
        assert!(!sessions.is_open(now, "a") && sessions.is_open(now + SESSION_LIFE / 2, "b"));
        assert!(!sessions.is_open(now + SESSION_LIFE, "b"));
    }

    #[test]
    fn neither_codes_nor_sessions_pile_up() {
        let (mut sessions, mut now) = (Sessions::default(), Instant::now());
        for n in 0..1000 {
            now += Duration::from_millis(1);
            sessions.add_code(now, &format!("c{n}"));
            if n % 2 == 0 {
                assert!(sessions.redeem(now, &format!("c{n}"), &format!("s{n}")));
            }
            assert!(sessions.codes.0.len() <= CODES_MAX && sessions.sessions.0.len() <= SESSIONS_MAX);
        }
        assert!(sessions.is_open(now, "s998") && !sessions.is_open(now, "s0"), "the oldest gave way");
    }
}
