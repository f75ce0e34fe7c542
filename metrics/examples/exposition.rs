//! Prints the exposition of one service with a sample in every family, for `promtool check metrics` and for
//! people who want to see what there is:
//!
//! ```text
//! cargo run -p quarta-metrics --example exposition -- superpeer | promtool check metrics
//! ```

use std::{error::Error, process::ExitCode, time::Duration};

use quarta_metrics::{
    Network, Node, Registry, Service, SuperPeer,
    network::{Direction, Protocol, RequestOutcome, Transport},
    node::{FetchOutcome, Flow},
    superpeer::{MemberState, PollOutcome, Role},
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let service = match std::env::args().nth(1).as_deref() {
        Some("superpeer") => Service::SuperPeer,
        Some("node") => Service::Node,
        _ => {
            eprintln!("usage: exposition superpeer|node");
            return Ok(ExitCode::from(2));
        }
    };
    print!("{}", exposition(service)?);
    Ok(ExitCode::SUCCESS)
}

fn exposition(service: Service) -> Result<String, Box<dyn Error>> {
    let registry = Registry::new(service, env!("CARGO_PKG_VERSION"))?;
    let network = Network::register(&registry)?;
    network.connection_opened(Transport::Tcp, Direction::Outbound);
    network.ping_rtt.observe(Duration::from_micros(700));
    let took = Duration::from_millis(12);
    network.request_ended(Direction::Outbound, Protocol::Hello, RequestOutcome::Answered, took);
    match service {
        Service::SuperPeer => {
            let superpeer = SuperPeer::register(&registry)?;
            superpeer.members.set((Role::Node, MemberState::Online), 2);
            superpeer.polls.inc(PollOutcome::Answered);
            superpeer.poll_duration.observe(took);
            superpeer.sources_offered.inc("filial-recife");
            superpeer.leased_bytes.replace([("filial-recife", 4096), ("filial-natal", 0)]);
            superpeer.served_bytes.add("filial-recife", 8192);
            superpeer.bad_sources_reported.inc("filial-natal");
            superpeer.fairness_of(&[8192.0, 0.0]);
        }
        Service::Node => {
            let node = Node::register(&registry)?;
            node.library_files.set(3);
            node.fetches.inc(FetchOutcome::Completed);
            node.fetched_bytes.add("filial-natal", Transport::Quic, 4096);
            node.served_bytes.add("filial-recife", 8192);
            node.transfer_ended(Flow::Download, 4096, took);
        }
    }
    Ok(registry.encode())
}
