//! What operators provision, the dashboard and the alerts, must ask for families that exist, and every family
//! must say what it is. A panel over a misspelt name stays empty for ever and nobody notices.

#![expect(clippy::unwrap_used, reason = "a panic in a helper fails the test that called it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use quarta_metrics::{Network, Node, Registry, Service, SuperPeer, network::Transport};
use serde_json::Value;

/// The exposition of both services, with a sample in each family.
fn expositions() -> [String; 2] {
    let superpeer = Registry::new(Service::SuperPeer, "1").unwrap();
    Network::register(&superpeer).unwrap();
    let families = SuperPeer::register(&superpeer).unwrap();
    families.sources_offered.inc("filial-recife");
    families.served_bytes.inc("filial-recife");
    families.bad_sources_reported.inc("filial-recife");
    families.leased_bytes.replace([("filial-recife", 1)]);

    let node = Registry::new(Service::Node, "1").unwrap();
    Network::register(&node).unwrap();
    let families = Node::register(&node).unwrap();
    families.fetched_bytes.add("filial-recife", Transport::Tcp, 1);
    families.served_bytes.inc("filial-recife");
    [superpeer.encode(), node.encode()]
}

/// Every series name that the expositions have: for a histogram its `_bucket`, `_sum` and `_count`.
fn series_names() -> BTreeSet<String> {
    expositions()
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// The words of a query, or of a file of rules, that name a family of Quarta's or of the process collector.
fn names_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("quarta_") || word.starts_with("process_"))
        .map(ToOwned::to_owned)
        .collect()
}

fn provisioned(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(expr)) = fields.get("expr") {
                found.push(expr.clone());
            }
            fields.values().for_each(|field| expressions(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_only_for_families_that_exist() {
    let dashboard: Value = serde_json::from_str(&provisioned("grafana/quarta-overview.json")).unwrap();
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() > 20, "found only {} queries", queries.len());
    let exist = series_names();
    for query in queries {
        let asked = names_in(&query);
        assert!(!asked.is_empty() || query.contains("up{"), "asks for nothing of ours: {query}");
        let unknown: Vec<_> = asked.difference(&exist).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
    }
}

#[test]
fn the_alerts_watch_only_families_that_exist() {
    let asked = names_in(&provisioned("prometheus/alerts.yml"));
    assert!(asked.len() > 5, "found only {asked:?}");
    let exist = series_names();
    let unknown: Vec<_> = asked.difference(&exist).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_panels_have_ids_and_places_of_their_own() {
    let dashboard: Value = serde_json::from_str(&provisioned("grafana/quarta-overview.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut cells = BTreeMap::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is too wide", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                let other = cells.insert((x, y), &panel["title"]);
                assert!(other.is_none(), "{} lies over {}", panel["title"], other.unwrap());
            }
        }
    }
}

#[test]
fn every_family_says_what_it_is() {
    for text in expositions() {
        let mut helps = BTreeSet::new();
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                assert!(help.ends_with('.'), "{name}: {help}");
                helps.insert(name);
            } else if let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                assert!(helps.contains(name), "{name} has no help");
            }
        }
    }
}

#[test]
fn no_label_of_ours_is_one_that_a_scrape_adds() {
    for text in expositions() {
        for line in text.lines().filter(|line| line.starts_with("quarta_")) {
            let Some((_, labels)) = line.split_once('{') else { continue };
            for added in ["job=", "instance=", "branch="] {
                assert!(!labels.split(['{', ',']).any(|label| label.starts_with(added)), "{line}");
            }
        }
    }
}
