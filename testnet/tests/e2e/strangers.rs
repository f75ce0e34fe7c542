//! Who is not let in, and what that leaves behind.

use crate::support::{Network, assert_fails, eventually, names_in, outsider};
use quarta_daemon::Role;
use quarta_testnet::stranger::{Answer, MEMBERS_PROTOCOLS, knock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_connected_and_answered_by_no_member_on_any_protocol() {
    let network = Network::start(1, 1, Duration::from_secs(15)).await;
    let status = network.superpeer(0).superpeer().status().await.unwrap();
    let id = status.network.parse().unwrap();
    for member in network.cluster.members() {
        let address = format!("/ip4/127.0.0.1/tcp/{}", member.peer_port()).parse().unwrap();
        for protocol in MEMBERS_PROTOCOLS {
            let answer = knock(std::clone::Clone::clone(&address), &id, protocol).await.unwrap();
            assert!(matches!(answer, Answer::Refused(_)), "{protocol} at {}: {answer:?}", member.name());
        }
    }
    // And nobody is any the worse for it.
    let file = network.share(0, "a.txt", b"a").await;
    eventually("members are served", async || {
        network.node(0).node().files("").await.is_ok_and(|files| files.iter().any(|f| f.id == file.id))
    })
    .await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_admits_as_often_and_as_long_as_it_says_and_a_refusal_leaves_nothing() {
    let network = Network::start(1, 0, Duration::from_secs(15)).await;
    let superpeer = network.superpeer(0).superpeer();
    let join = async |name: &str, invite: &str| {
        let joiner = network.cluster.outsider(outsider(name, Role::Node)).unwrap();
        let output = joiner.run(&["join", "-", "--name", name], invite).await.unwrap();
        (joiner, output)
    };

    // Of several at once, exactly one gets a place for one.
    let invite = superpeer.invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    let names = ["um", "dois", "tres", "quatro", "cinco"];
    let joined = futures::future::join_all(names.map(|name| join(name, &invite))).await;
    let (admitted, refused): (Vec<_>, Vec<_>) =
        joined.iter().partition(|(_, output)| output.status.success());
    assert_eq!(admitted.len(), 1, "{joined:?}");
    for (joiner, output) in refused {
        assert_fails(output, 4, &["cannot join the network", "the invite has been used already"]);
        assert_eq!(names_in(joiner.data()), [] as [&str; 0], "nothing is left");
    }

    // One that has run out.
    let invite = superpeer.invite("node", 1, Duration::from_secs(1)).await.unwrap();
    eventually("its time is over", async || {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() > invite.expires
    })
    .await;
    let (joiner, output) = join("tarde", &invite.invite).await;
    assert_fails(&output, 4, &["cannot join the network", "expired"]);
    assert_eq!(names_in(joiner.data()), [] as [&str; 0]);

    // One for the other role.
    let invite = superpeer.invite("superpeer", 1, Duration::from_hours(1)).await.unwrap().invite;
    let (joiner, output) = join("papel", &invite).await;
    assert_fails(&output, 2, &["quarta-superpeer join"]);
    assert_eq!(names_in(joiner.data()), [] as [&str; 0]);

    // One that was not copied whole.
    let (joiner, output) = join("cortado", &invite[..invite.len() - 5]).await;
    assert_fails(&output, 2, &["incomplete or mistyped"]);
    assert_eq!(names_in(joiner.data()), [] as [&str; 0]);

    // A name that a member has.
    let invite = superpeer.invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    let joiner = network.cluster.outsider(outsider("outro", Role::Node)).unwrap();
    let output = joiner.run(&["join", "-", "--name", admitted[0].0.name()], &invite).await.unwrap();
    assert_fails(&output, 4, &["cannot join the network"]);
    assert_eq!(names_in(joiner.data()), [] as [&str; 0], "nothing is left");

    let members = superpeer.members().await.unwrap();
    assert_eq!(members.iter().filter(|member| member.role == "node").count(), 1, "{members:?}");
    network.stop().await;
}
