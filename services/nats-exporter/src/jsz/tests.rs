//! Answers in, series out: what rows there are, whose they are, and what is not made up.

use super::*;
use crate::endpoint::Namespace;
use crate::{
    filter::{Rule, expression},
    snapshot::{Pages, Snapshot},
};
use std::{convert::Infallible, sync::Arc};

fn plan() -> Plan {
    Plan {
        level: Level::Consumers,
        stock: Some(Namespace::default()),
        is_compact: true,
        has_ephemeral: false,
        stream_meta: vec![],
        consumer_meta: vec![],
        rows_max: 1000,
    }
}

const META: &str = r#""meta_cluster":{"name":"C","leader":"n2"},"#;

fn answer(meta: &str, streams: &str) -> String {
    format!(
        r#"{{"now":"2026-01-01T00:01:00Z","memory":1,"storage":2,"api":{{"total":7,"errors":1}},
        "config":{{"max_memory":10,"max_storage":20,"domain":"hub"}},{meta}"streams":1,"consumers":1,"messages":5,"bytes":9,
        "account_details":[{{"name":"A","id":"A-ID","memory":3,"reserved_storage":18446744073709551615,"stream_detail":[{streams}]}}],"total":1}}"#
    )
}

fn stream(leader: &str, consumers: &str) -> String {
    format!(
        r#"{{"name":"S","cluster":{{"leader":"{leader}","leader_since":"2026-01-01T00:00:30Z","replicas":[{{"name":"n9","current":true,"lag":4}}]}},
        "config":{{"max_msgs":-1,"max_bytes":100,"metadata":{{"team":"blue"}}}},
        "state":{{"messages":5,"bytes":50,"first_seq":1,"first_ts":"2026-01-01T00:00:10Z","last_seq":5,"last_ts":"2026-01-01T00:00:20Z","num_subjects":1,"consumer_count":2}},
        "consumer_detail":[{consumers}],"stream_raft_group":"S-R3F"}}"#
    )
}

fn consumer(name: &str, durable: &str, cluster: &str, num_pending: u64) -> String {
    format!(
        r#"{{"name":"{name}","config":{{"durable_name":"{durable}","description":"d","deliver_policy":"all","ack_wait":30000000000,"max_ack_pending":1000,"max_deliver":-1,"max_waiting":512}},
        "delivered":{{"consumer_seq":2,"stream_seq":2,"last_active":"2026-01-01T00:00:50Z"}},"ack_floor":{{"consumer_seq":0,"stream_seq":0}},
        "num_ack_pending":2,"num_pending":{num_pending}{cluster},"ts":"2026-01-01T00:01:00Z"}}"#
    )
}

fn named(server: &str) -> Server {
    Server { id: server.to_owned(), name: server.to_owned(), reports_since: true }
}

async fn read(reader: &mut Reader<'_>, text: &str) -> Result<Page, Error<Infallible>> {
    let pieces: Vec<_> = text.as_bytes().chunks(97).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    reader.page(&mut Document::new(futures_util::stream::iter(pieces), 1 << 20)).await
}

async fn found(plan: &Plan, filter: &Filter, server: &str, text: &str) -> (Vec<Table>, Option<Claims>) {
    let mut reader = Reader::new(plan, filter, named(server));
    read(&mut reader, text).await.unwrap();
    reader.finish()
}

fn lines(tables: Vec<Table>) -> Vec<String> {
    let text: Vec<u8> = Pages::new(Arc::new(Snapshot::new(tables, 10_000).0)).flatten().collect();
    let text = String::from_utf8(text).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

async fn compact(server: &str, text: &str) -> Vec<String> {
    let (_, claims) = found(&plan(), &Filter::default(), server, text).await;
    lines(settle(claims.into_iter().collect()).0)
}

fn has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|l| l == line), "no {line} in\n{}", lines.join("\n"));
}

#[tokio::test]
async fn stock_rows_have_all_labels_and_those_of_no_other_row() {
    let follower = consumer("c1", "c1", r#","cluster":{"leader":"n3"}"#, 3);
    let alone = r#"{"name":"c2","num_pending":1}"#;
    let text = answer(META, &stream("n2", &format!("{follower},{alone}")));
    let (tables, _) = found(&plan(), &Filter::default(), "n2", &text).await;
    let lines = lines(tables);
    let server = r#"server_id="n2",server_name="n2",cluster="C",domain="hub",meta_leader="n2",is_meta_leader="true""#;
    let account = r#"account="A",account_name="A",account_id="A-ID""#;
    let stream = format!(
        r#"{server},{account},stream_name="S",stream_leader="n2",is_stream_leader="true",stream_raft_group="S-R3F""#
    );
    has(&lines, &format!("jetstream_server_total_messages{{{server}}} 5"));
    has(&lines, &format!("jetstream_account_max_storage{{{server},{account}}} 18446744073709552000"));
    has(&lines, &format!("jetstream_stream_limit_bytes{{{stream}}} 100"));
    has(
        &lines,
        &format!(
            r#"jetstream_consumer_num_pending{{{stream},consumer_name="c1",consumer_leader="n3",is_consumer_leader="false",consumer_desc="d"}} 3"#
        ),
    );
    has(
        &lines,
        &format!(
            r#"jetstream_consumer_num_pending{{{stream},consumer_name="c2",consumer_leader="",is_consumer_leader="true",consumer_desc=""}} 1"#
        ),
    );
    let ages: Vec<_> = lines.iter().filter(|l| l.starts_with("jetstream_consumer_last_delivery_seconds")).collect();
    assert_eq!(ages.len(), 1, "absent if never");
    assert!(ages[0].ends_with(" 10"));
}

#[tokio::test]
async fn the_compact_family_has_the_leaders_durable_consumers_alone() {
    let here = consumer("c1", "c1", r#","cluster":{"leader":"n2"}"#, 3);
    let there = consumer("c2", "c2", r#","cluster":{"leader":"n3"}"#, 9);
    let nobody = consumer("c4", "c4", r#","cluster":{"leader":""}"#, 9);
    let ephemeral = consumer("c3", "", r#","cluster":{"leader":"n2"}"#, 9);
    let text = answer(META, &stream("n3", &[here, there, nobody, ephemeral].join(",")));
    let lines = compact("n2", &text).await;
    let of = |name: &str| -> Vec<&String> { lines.iter().filter(|l| l.starts_with(&format!("{name}{{"))).collect() };
    assert_eq!(
        of("nats_jetstream_consumer_num_pending"),
        [r#"nats_jetstream_consumer_num_pending{account="A",stream="S",consumer="c1"} 3"#]
    );
    has(&lines, r#"nats_jetstream_consumer_ack_wait_seconds{account="A",stream="S",consumer="c1"} 30"#);
    has(
        &lines,
        r#"nats_jetstream_consumer_leader_info{account="A",stream="S",consumer="c1",leader="n2",server_name="n2"} 1"#,
    );
    has(&lines, r#"nats_jetstream_api_requests_total{server_name="n2"} 7"#);
    assert!(of("nats_jetstream_stream_messages").is_empty(), "the stream is led elsewhere");
    let lines = compact("n3", &text).await;
    has(&lines, r#"nats_jetstream_stream_replica_lag{account="A",stream="S",peer="n9"} 4"#);
    has(&lines, r#"nats_jetstream_stream_limit_messages{account="A",stream="S"} -1"#);
}

#[tokio::test]
async fn of_two_that_claim_to_lead_the_later_is_believed() {
    let claim = |name: &str, since: &str, pending| {
        let cluster = format!(r#","cluster":{{"leader":"{name}","leader_since":"{since}"}}"#);
        let text = answer(META, &stream(name, &consumer("c1", "c1", &cluster, pending)));
        text.replace("2026-01-01T00:00:30Z", since)
    };
    let (old, new) = (claim("n1", "2026-01-01T00:00:01Z", 1), claim("n2", "2026-01-01T00:00:02Z", 2));
    for (first, second) in [(("n1", &old), ("n2", &new)), (("n2", &new), ("n1", &old))] {
        let (plan, filter) = (plan(), Filter::default());
        let mut claims = vec![];
        for (server, text) in [first, second] {
            claims.extend(found(&plan, &filter, server, text).await.1);
        }
        let (tables, foreign) = settle(claims);
        let lines = lines(tables);
        let of = |name: &str| lines.iter().filter(|l| l.starts_with(&format!("{name}{{"))).cloned().collect::<Vec<_>>();
        assert_eq!(
            of("nats_jetstream_consumer_num_pending"),
            [r#"nats_jetstream_consumer_num_pending{account="A",stream="S",consumer="c1"} 2"#]
        );
        assert_eq!(of("nats_jetstream_consumer_leader_info").len(), 1);
        assert_eq!(of("nats_jetstream_stream_messages").len(), 1);
        assert_eq!(of("nats_jetstream_stream_replica_lag").len(), 1);
        assert_eq!(foreign, 0);
    }
}

#[tokio::test]
async fn a_leader_that_has_not_counted_yet_is_not_believed() {
    for (since, rows) in [("2026-01-01T00:00:59.5Z", 0), ("2026-01-01T00:00:58Z", 1), ("", 1)] {
        let cluster = format!(r#","cluster":{{"leader":"n2","leader_since":"{since}"}}"#);
        let lines = compact("n2", &answer(META, &stream("n2", &consumer("c1", "c1", &cluster, 0)))).await;
        let found = lines.iter().filter(|l| l.starts_with("nats_jetstream_consumer_num_pending{")).count();
        assert_eq!(found, rows, "leads since {since}");
    }
}

#[tokio::test]
async fn who_was_elected_but_does_not_lead_yet_is_not_believed() {
    const LED: &str = r#""raft_group":"G","leader":"n2","leader_since":"2026-01-01T00:00:30Z""#;
    const ELECTED: &str = r#""raft_group":"G","leader":"n2""#;
    // A stream with one replica has no group, and no moment since when.
    const SINGLE: &str = r#""leader":"n2""#;
    for (group, reports_since, rows) in
        [(LED, true, 1), (ELECTED, true, 0), (SINGLE, true, 1), (LED, false, 1), (ELECTED, false, 1)]
    {
        let cluster = format!(r#","cluster":{{{group}}}"#);
        let text = stream("n2", "CONSUMER").replace(r#""leader":"n2","leader_since":"2026-01-01T00:00:30Z""#, group);
        let text = text.replace("CONSUMER", &consumer("c1", "c1", &cluster, 0));
        let (plan, filter) = (plan(), Filter::default());
        let mut reader = Reader::new(&plan, &filter, Server { reports_since, ..named("n2") });
        read(&mut reader, &answer(META, &text)).await.unwrap();
        let lines = lines(settle(reader.finish().1.into_iter().collect()).0);
        for name in ["consumer_num_pending", "consumer_leader_info", "stream_messages", "stream_replica_lag"] {
            let start = format!("nats_jetstream_{name}{{");
            let found = lines.iter().filter(|l| l.starts_with(&start)).count();
            assert_eq!(found, rows, "{name} with {group}, reports_since={reports_since}");
        }
    }
}

#[tokio::test]
async fn equal_names_of_two_clusters_are_left_out_and_counted() {
    let text = |pending| answer("", &stream("alone", &consumer("c1", "c1", "", pending)));
    let (plan, filter) = (plan(), Filter::default());
    let mut claims = vec![];
    for (server, pending) in [("alone", 1), ("alone", 2)] {
        claims.extend(found(&plan, &filter, server, &text(pending)).await.1);
    }
    let (tables, foreign) = settle(claims);
    has(&lines(tables), r#"nats_jetstream_consumer_num_pending{account="A",stream="S",consumer="c1"} 1"#);
    assert!(foreign > 0);
}

#[tokio::test]
async fn filters_keep_names_out_of_both_families() {
    let text = answer("", &stream("n2", &[consumer("c1", "c1", "", 1), consumer("c2", "c2", "", 1)].join(",")));
    let except = |text: &str| Rule { include: None, exclude: Some(expression(text).unwrap()) };
    let count = async |filter: Filter| {
        let (mut tables, claims) = found(&plan(), &filter, "n2", &text).await;
        tables.extend(settle(claims.into_iter().collect()).0);
        let lines = lines(tables);
        let of = |part: &str| lines.iter().filter(|l| l.contains(part)).count();
        (of("consumer_num_pending"), of("jetstream_stream_first_seq"), of("jetstream_account_max_memory"))
    };
    assert_eq!(count(Filter::default()).await, (4, 2, 1));
    assert_eq!(count(Filter { consumer: except("c1"), ..Filter::default() }).await, (2, 2, 1));
    assert_eq!(count(Filter { stream: except("S"), ..Filter::default() }).await, (0, 0, 1));
    assert_eq!(count(Filter { account: except("A"), ..Filter::default() }).await, (0, 0, 0));
}

#[tokio::test]
async fn chosen_metadata_become_labels_also_where_they_are_missing() {
    let key = |key: &str, label: &str| MetaKey { key: key.into(), label: label.into() };
    let plan = Plan {
        stream_meta: vec![key("team", "stream_meta_team")],
        consumer_meta: vec![key("a-b", "consumer_meta_a_b")],
        ..plan()
    };
    let text = answer("", &stream("n2", &consumer("c1", "c1", "", 1)));
    let lines = lines(found(&plan, &Filter::default(), "n2", &text).await.0);
    assert!(
        lines.iter().any(|l| l.starts_with("jetstream_consumer_num_pending{")
            && l.contains(r#"stream_meta_team="blue",consumer_name="c1""#)
            && l.contains(r#"consumer_desc="d",consumer_meta_a_b="""#)),
        "{lines:?}"
    );
}

#[tokio::test]
async fn the_oldest_pending_message_is_told_only_where_it_is_known() {
    let of = async |consumer: &str| {
        let lines = compact("n2", &answer("", &stream("n2", consumer))).await;
        let line = lines.iter().find(|l| l.contains("oldest_pending_timestamp_seconds")).cloned();
        line.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    let first = 1_767_225_610.0;
    let with = |change: &str, to: &str| consumer("c1", "c1", "", 3).replace(change, to);
    assert_eq!(of(&consumer("c1", "c1", "", 3)).await, Some(first), "3 not delivered and 2 not acknowledged are all 5");
    assert_eq!(of(&with(r#""num_pending":3"#, r#""num_pending":2"#)).await, Some(first), "not past the first");
    let filtered = with(r#""deliver_policy":"all""#, r#""deliver_policy":"all","filter_subject":"x""#);
    assert_eq!(of(&filtered).await, Some(first), "all of the stream is pending");
    assert_eq!(of(&filtered.replace(r#""num_pending":3"#, r#""num_pending":1"#)).await, None);
    let floor = |seq: u64, pending: u64| {
        with(
            r#""ack_floor":{"consumer_seq":0,"stream_seq":0}"#,
            &format!(r#""ack_floor":{{"consumer_seq":9,"stream_seq":{seq}}}"#),
        )
        .replace(r#""num_pending":3"#, &format!(r#""num_pending":{pending}"#))
        .replace(r#""num_ack_pending":2"#, r#""num_ack_pending":0"#)
    };
    assert_eq!(of(&floor(2, 3)).await, None, "the third message's time is not in the answer");
    assert_eq!(of(&floor(4, 1)).await, Some(first + 10.0), "the last one is left");
    assert_eq!(of(&floor(5, 0)).await, None, "nothing is pending");
}

#[tokio::test]
async fn answers_of_another_shape_are_errors() {
    let (plan, filter) = (plan(), Filter::default());
    let good = answer("", &stream("n2", &consumer("c1", "c1", "", 1)));
    let bad = [
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"status":"ok"}"#.to_owned(),
        good.replace(r#""name":"S","#, ""),
        good.replace(r#""num_pending":1"#, r#""num_pending":"many""#),
        good[..good.len() - 1].to_owned(),
        format!("{good}{good}"),
    ];
    for text in bad {
        let mut reader = Reader::new(&plan, &filter, named("n2"));
        assert!(read(&mut reader, &text).await.is_err(), "{text}");
    }
    let mut reader = Reader::new(&plan, &filter, named("n2"));
    assert_eq!(read(&mut reader, &good).await.unwrap(), Page { accounts: 1, total: Some(1) });
    let disabled = r#"{"now":"2026-01-01T00:00:00Z","disabled":true,"config":null,"account_details":null}"#;
    let mut reader = Reader::new(&plan, &filter, named("n2"));
    assert_eq!(read(&mut reader, disabled).await.unwrap(), Page { accounts: 0, total: None });
    let (tables, claims) = reader.finish();
    has(
        &lines(tables),
        r#"jetstream_server_jetstream_disabled{server_id="n2",server_name="n2",cluster="",domain="",meta_leader="",is_meta_leader="true"} 1"#,
    );
    assert!(lines(settle(claims.into_iter().collect()).0).is_empty());
}

#[test]
fn a_page_is_asked_for_with_what_its_level_needs() {
    let path = |level, stock: bool| Plan { level, stock: stock.then(Namespace::default), ..plan() }.path(0);
    assert_eq!(path(Level::Accounts, true), "jsz?accounts=true");
    assert_eq!(path(Level::Streams, true), "jsz?streams=true&config=true");
    assert_eq!(path(Level::Consumers, true), "jsz?consumers=true&config=true&raft=true");
    assert_eq!(path(Level::Consumers, false), "jsz?consumers=true&config=true");
    assert_eq!(plan().path(1024), "jsz?consumers=true&config=true&raft=true&offset=1024&limit=1024");
}
