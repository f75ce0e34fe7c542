//! The registry of one process and its exposition in Prometheus' classic text format.
//!
//! A registry is a value, not the `prometheus` crate's global one: a test, or a process that runs several
//! members, has as many as it needs, and what is exposed is what was registered here.

use std::fmt;

use prometheus::{Encoder, IntGauge, Opts, TextEncoder, core::Collector};
use thiserror::Error;

use crate::members::MemberNames;

/// The media type of [`Registry::encode`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Which service a process runs; it gives the families their prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `quarta-superpeer serve`.
    SuperPeer,
    /// `quarta serve`.
    Node,
}

impl Service {
    /// The first words of the names of this service's families.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::SuperPeer => "quarta_superpeer",
            Self::Node => "quarta_node",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SuperPeer => "superpeer",
            Self::Node => "node",
        })
    }
}

/// A family could not be registered: its name is invalid or already taken in this registry.
#[derive(Debug, Error)]
#[error("cannot register a metric family: {0}")]
pub struct RegisterError(#[from] prometheus::Error);

/// All metric families of one process. Clones share the same families.
#[derive(Clone, Debug)]
pub struct Registry {
    service: Service,
    inner: prometheus::Registry,
    members: MemberNames,
}

impl Registry {
    /// Makes a registry that holds the process's own figures (memory, file descriptors, CPU time; Linux only)
    /// and `quarta_build_info`, whose labels tell the service and its version.
    pub fn new(service: Service, version: &str) -> Result<Self, RegisterError> {
        let registry = Self { service, inner: prometheus::Registry::new(), members: MemberNames::default() };
        #[cfg(target_os = "linux")]
        registry.inner.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = Opts::new("quarta_build_info", "Always 1; the labels tell what runs here.")
            .const_label("service", service.to_string())
            .const_label("version", version);
        registry.register(IntGauge::with_opts(build)?)?.set(1);
        Ok(registry)
    }

    /// The service that this process runs.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Returns the current value of every family in the classic text format ([`CONTENT_TYPE`]), sorted by name.
    pub fn encode(&self) -> String {
        let mut families = self.inner.gather();
        families.retain(|family| !family.name().is_empty() && !family.get_metric().is_empty());
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("every family kept above has a name and a sample, and a vector takes every byte");
        String::from_utf8(text).expect("the text encoder writes nothing but strings")
    }

    /// The member names that this process uses as label values.
    pub(crate) fn members(&self) -> &MemberNames {
        &self.members
    }

    /// A family's full name: the service's prefix and `name`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}_{name}", self.service.prefix())
    }

    pub(crate) fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, RegisterError> {
        self.inner.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Network, Node};

    #[test]
    fn a_new_registry_tells_its_build_and_its_process() {
        let text = Registry::new(Service::Node, "1.2.3").unwrap().encode();
        assert!(text.contains(r#"quarta_build_info{service="node",version="1.2.3"} 1"#), "{text}");
        #[cfg(target_os = "linux")]
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn a_family_is_registered_once() {
        let registry = Registry::new(Service::Node, "1.2.3").unwrap();
        Node::register(&registry).unwrap();
        assert!(Node::register(&registry).is_err());
    }

    #[test]
    fn two_registries_share_nothing() {
        let first = Registry::new(Service::Node, "1").unwrap();
        let second = Registry::new(Service::SuperPeer, "1").unwrap();
        Network::register(&first).unwrap().ping_failures.inc();
        Network::register(&second).unwrap();
        assert!(first.encode().contains("quarta_node_ping_failures_total 1\n"));
        assert!(second.encode().contains("quarta_superpeer_ping_failures_total 0\n"));
    }
}
