use super::*;
use crate::record::journal::tests::parameters;
use crate::record::load::Distribution;
use crate::record::samples::Look;
use crate::record::{
    Bucket, Command, Journal, Life, MemberList, MemberRow, MetricChange, Moment, Polls, SharedFile, Sighting,
    SourceRow, TransferRow,
};
use proptest::prelude::*;
use roxmltree::{Document, ParsingOptions};

fn empty() -> Record {
    Journal::begin(Command::Demo, parameters(), std::io::sink()).finish(Outcome::Passed)
}

/// A record in which everything that others chose is `text`.
fn full(text: &str) -> Record {
    let mut journal = Journal::begin(Command::Up, parameters(), std::io::sink());
    journal.check(text, Ok::<_, &str>(text)).unwrap();
    let name = |end: &str| format!("{text}{end}");
    let mut record = journal.finish(Outcome::Failed { why: text.to_owned() });
    record.seconds = 12.0;
    record.files.push(SharedFile { name: name(""), owner: name(""), size_bytes: 3, sha256: name("") });
    record.timeline = (0..40).map(|at| Moment { at_seconds: f64::from(at) / 4.0, what: name("") }).collect();
    record.lives = vec![
        Life {
            member: name("a"),
            role: "node".to_owned(),
            from_seconds: 0.1,
            to_seconds: Some(4.0),
            end: Some("signal 9".to_owned()),
        },
        Life { member: name("a"), role: "node".to_owned(), from_seconds: 6.0, to_seconds: None, end: None },
    ];
    let sighting = |at_seconds, state: &str| Sighting {
        at_seconds,
        member: name("a"),
        state: state.to_owned(),
        seen_by: name(""),
    };
    record.sightings = vec![sighting(0.5, "online"), sighting(5.0, "offline"), sighting(7.0, "online")];
    let row = MemberRow { name: name("a"), role: name(""), state: name(""), files: 1, stored_bytes: 4_242 };
    record.member_lists.push(MemberList {
        at_seconds: 1.0,
        when: name(""),
        seen_by: name(""),
        members: vec![row],
    });
    let source = |end: &str, bytes| SourceRow {
        name: name(end),
        transport: Some(name("")),
        bytes,
        fault: Some(name("")),
    };
    for at in 0..20 {
        record.transfers.push(TransferRow {
            file: name(""),
            to: name("a"),
            at_seconds: f64::from(at) / 10.0,
            state: name(""),
            size_bytes: 1_000_003,
            seconds: 3.0,
            bytes_per_second: 333_334.3,
            sha256: name(""),
            identical: None,
            sources: vec![source("b", 600_001), source("c", 400_002)],
        });
    }
    record.load = Distribution::new(
        &[name("a"), name("b"), name("c")],
        &std::collections::BTreeMap::new(),
        &record.transfers,
    );
    for at in 0..20_u32 {
        let look = Look {
            rss_bytes: (!(8..12).contains(&at)).then_some(30 << 20),
            cpu_seconds: Some(f64::from(at) / 3.0),
            sent_bytes: Some(u64::from(at) << 20),
        };
        record.samples.push(f64::from(at) / 2.0, vec![(name("a"), look)]);
    }
    record.metrics.push(MetricChange {
        member: name("a"),
        family: format!("quarta_node_{text}"),
        before: None,
        after: Some(7.0),
    });
    let buckets = vec![
        Bucket { up_to_seconds: Some(0.005), count: 0 },
        Bucket { up_to_seconds: Some(0.01), count: 9 },
        Bucket { up_to_seconds: None, count: 1 },
    ];
    record.polls.push(Polls {
        superpeer: name("p"),
        answered: 10,
        missed: 1,
        mean_seconds: Some(0.007),
        buckets,
    });
    record
}

fn logs(text: &str) -> Vec<LogEnd> {
    vec![LogEnd { member: text.to_owned(), lines: vec![text.to_owned(), String::new()] }]
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}\n{page}"))
}

/// The names of all elements, in order.
fn elements(page: &str) -> Vec<String> {
    parse(page)
        .descendants()
        .filter(roxmltree::Node::is_element)
        .map(|node| node.tag_name().name().to_owned())
        .collect()
}

const HOSTILE: &str = "</script></style></title><script src=\"https://evil.example/x.js\">alert(1)</script><img src=x onerror='a'>\
    \" onload=\"b & ]]> <!-- \u{202e}gpj\u{0}\n";

#[test]
fn hostile_names_stay_text_wherever_they_stand() {
    let page = render(&full(HOSTILE), &logs(HOSTILE));
    assert_eq!(elements(&page), elements(&render(&full("plain"), &logs("plain"))));
    assert!(!page.contains('\u{202e}') && !page.contains('\u{0}'));
    assert!(page.contains("&lt;script src="), "it is shown");
}

#[test]
fn the_page_loads_and_runs_nothing() {
    let page = render(&full(HOSTILE), &logs(HOSTILE));
    let document = parse(&page);
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(
            !["script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"]
                .contains(&name),
            "{name}"
        );
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(
                !name.starts_with("on") && !["src", "style", "xlink:href"].contains(&name),
                "{name}={value}"
            );
            if name == "href" {
                let relative = !value.contains(':') && !value.starts_with('/') && !value.contains("..");
                assert!(relative, "{value}");
            }
        }
    }
    assert!(
        !STYLE.contains("url(") && !STYLE.contains("@import") && !STYLE.contains('<') && !STYLE.contains('&')
    );
    let policy = document.descendants().find(|node| node.attribute("http-equiv").is_some()).unwrap();
    let hash = BASE64.encode(&Sha256::digest(STYLE.as_bytes()));
    let policy = policy.attribute("content").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; ") && policy.contains(&hash) && !policy.contains("unsafe"),
        "{policy}"
    );
}

#[test]
fn the_pages_figures_are_those_of_the_record() {
    let record = full("x");
    let page = render(&record, &[]);
    let document = parse(&page);
    let section = |id: &str| document.descendants().find(|node| node.attribute("id") == Some(id)).unwrap();
    let data = |id: &str| -> u64 {
        let values = section(id).descendants().filter(|node| node.has_tag_name("data"));
        values.map(|node| node.attribute("value").unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(data("transfers"), record.transfers.iter().map(|row| row.size_bytes).sum::<u64>());
    assert_eq!(data("members"), 4_242);
    let served: u64 = record.load.holders.iter().map(|holder| holder.served_bytes).sum();
    // Every cell, and the sum at the end of each row.
    assert_eq!(data("exchange"), 2 * served);
    let text = |id: &str| -> String { section(id).descendants().filter_map(|node| node.text()).collect() };
    for row in &record.transfers {
        assert!(text("transfers").contains(&sources_told(row)), "{}", text("transfers"));
    }
    assert!(text("spread").contains(&format!("{:.3}", record.load.fairness)));
    assert!(
        text("polls").contains("10 polls were answered and 1 missed") && text("polls").contains("7.00 ms")
    );
    assert!(text("checks").contains("✓ held"));
    assert!(text("timeline").contains("killed: xa at 4.0 s"));
    assert!(text("metrics").contains("+7"));
}

fn sources_told(row: &TransferRow) -> String {
    crate::record::markdown::sources(&row.sources)
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    for record in [empty(), full("x")] {
        let page = render(&record, &[]);
        let document = parse(&page);
        let ids: Vec<_> = document.descendants().filter_map(|node| node.attribute("id")).collect();
        for link in document.descendants().filter_map(|node| node.attribute("href")) {
            let found = link.strip_prefix('#').is_none_or(|id| ids.contains(&id));
            assert!(found, "{link} in {ids:?}");
        }
    }
}

#[test]
fn a_record_of_nothing_and_an_interrupted_one_are_pages_that_say_so() {
    let page = render(&empty(), &[]);
    assert!(page.contains("✓ Passed") && elements(&page).contains(&"figure".to_owned()));
    let interrupted = Record { outcome: Outcome::Interrupted, ..empty() };
    assert!(render(&interrupted, &[]).contains("Interrupted before its end"));
    let failed = Record { outcome: Outcome::Failed { why: "a < b".to_owned() }, ..empty() };
    assert!(render(&failed, &[]).contains("✗ Failed: a &lt; b"));
}

#[test]
fn every_drawing_is_described_in_words() {
    let page = render(&full("x"), &[]);
    let document = parse(&page);
    let outermost = document.descendants().filter(|node| {
        node.has_tag_name("svg") && !node.ancestors().skip(1).any(|ancestor| ancestor.has_tag_name("svg"))
    });
    for drawing in outermost {
        let described = drawing.attribute("aria-label").is_some_and(|said| !said.is_empty());
        assert!(described || drawing.attribute("aria-hidden") == Some("true"), "{drawing:?}");
    }
    assert!(document.descendants().filter(|node| node.has_tag_name("figure")).count() >= 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_record_with_any_text_is_a_page_of_the_same_shape(text in any::<String>()) {
        prop_assume!(!text.is_empty());
        prop_assert_eq!(elements(&render(&full(&text), &logs(&text))), elements(&render(&full("x"), &logs("x"))));
    }
}
