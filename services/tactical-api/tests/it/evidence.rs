//! Signed links from a marker to what the edge delivered: whole, in part, and refused.

use crate::support::{Api, SOON, Sse, World, request};
use agentforge_harness::{eventually, require};
use async_nats::{HeaderMap, jetstream::stream};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use ring::hmac;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What the syncdaemon makes, with its names.
pub async fn evidence_streams(world: &World) {
    let js = world.bus().await.js;
    for (name, subjects) in [
        ("edge_evidence", vec!["edge.evidence.>"]),
        ("OBJ_edge_evidence_blobs", vec!["$O.edge_evidence_blobs.C.>", "$O.edge_evidence_blobs.M.>"]),
    ] {
        let subjects = subjects.into_iter().map(str::to_owned).collect();
        let config = stream::Config {
            name: name.into(),
            subjects,
            allow_direct: true,
            allow_rollup: true,
            ..Default::default()
        };
        js.create_stream(config).await.unwrap();
    }
}

/// A file as its message.
pub async fn deliver(world: &World, content: &[u8], name: &str, alias: Option<&str>) -> String {
    let sha = hex::encode(Sha256::digest(content));
    let mut headers = HeaderMap::new();
    headers.insert("Agentforge-File", name);
    headers.insert("Content-Type", "image/png");
    if let Some(alias) = alias {
        headers.insert("AF-Evidence-Id", alias);
    }
    let js = world.bus().await.js;
    let subject = format!("edge.evidence.pier-7.{sha}");
    js.publish_with_headers(subject, headers, content.to_vec().into()).await.unwrap().await.unwrap();
    format!("pier-7/{sha}")
}

/// The link that a marker with this evidence carries.
async fn link(world: &World, evidence_id: &str) -> String {
    let mut sse = Sse::open(world.api.address(), "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    let body = json!({"title": "t", "coordinates": [1, 2], "evidence_id": evidence_id});
    world.bus().await.publish("tactical.markers.pier-7.m", &body).await;
    let got = sse.next().await.unwrap();
    drop(sse);
    world.api.until_clients(0.0, 0.0).await;
    got.data["properties"]["evidence_link"].as_str().unwrap().to_owned()
}

pub fn sign(secret: &str, id: &str, expiry: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, format!("{id}.{expiry}").as_bytes()));
    let id = id.replace('%', "%25").replace('/', "%2F").replace(' ', "%20");
    format!("/v1/evidence/{id}.{expiry}.{signature}")
}

fn later() -> i64 {
    jiff::Timestamp::now().as_second() + 100
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_the_file_with_its_digest_and_nothing_else_does() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    evidence_streams(&world).await;
    let id = deliver(&world, b"0123456789", "a/photo%20%C3%BC.png", Some("report.v1/photo")).await;
    let link = link(&world, &id).await;
    let address = world.api.address();
    let (status, headers, body) = request(address, "GET", &link, &[], "").await;
    assert_eq!((status, &body[..]), (200, &b"0123456789"[..]));
    let digest = STANDARD.encode(Sha256::digest(b"0123456789"));
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", "10"),
        ("content-disposition", "attachment; filename=\"photo _.png\"; filename*=UTF-8''photo%20%C3%BC%2Epng"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("accept-ranges", "bytes"),
        ("repr-digest", &format!("sha-256=:{digest}:")),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let (status, headers, body) = request(address, "HEAD", &link, &[], "").await;
    assert_eq!((status, headers["content-length"].as_str(), body.len()), (200, "10", 0));

    for (range, status, content, shown) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=8-", 206, "89", "bytes 8-9/10"),
        ("bytes=-1", 206, "9", "bytes 9-9/10"),
        ("bytes=0-999", 206, "0123456789", "bytes 0-9/10"),
    ] {
        let (found, headers, body) = request(address, "GET", &link, &[&format!("Range: {range}")], "").await;
        assert_eq!((found, body, headers["content-range"].as_str()), (status, content.into(), shown));
    }
    let (status, headers, _) = request(address, "GET", &link, &["Range: bytes=10-"], "").await;
    assert_eq!((status, headers["content-range"].as_str()), (416, "bytes */10"));
    let (range, etag) = ("Range: bytes=2-4", format!("\"{}\"", id.split_once('/').unwrap().1));
    let with = |name: &str, tag: &str| format!("{name}: {tag}");
    for (method, given, status, length) in [
        ("HEAD", vec![range.to_owned()], 200, "10"),
        ("GET", vec![range.to_owned(), with("If-Range", "\"other\"")], 200, "10"),
        ("GET", vec![range.to_owned(), with("If-Range", &etag)], 206, "3"),
        ("GET", vec![with("If-None-Match", &etag)], 304, ""),
        ("HEAD", vec![with("If-None-Match", &format!("\"x\", W/{etag}"))], 304, ""),
        ("GET", vec![with("If-None-Match", "\"x\"")], 200, "10"),
        ("GET", vec![with("If-Match", "\"x\"")], 412, ""),
        ("GET", vec![with("If-Match", &etag), range.to_owned()], 206, "3"),
    ] {
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let (found, headers, body) = request(address, method, &link, &given, "").await;
        assert_eq!((found, &headers["etag"]), (status, &etag), "{method} {given:?}");
        if !length.is_empty() {
            assert_eq!(headers["content-length"], length, "{method} {given:?}");
        }
        assert_eq!(body.is_empty(), method == "HEAD" || status == 304, "{method} {given:?}");
    }

    // By its alias, too, with dots and a slash.
    let by_alias = sign("dev-secret-that-everybody-knows", "report.v1/photo", later());
    eventually(SOON, "the alias is known", || async { request(address, "GET", &by_alias, &[], "").await.0 == 200 })
        .await;

    let (changed, unsigned) = (link.replace("pier-7", "pier-8"), link.rsplit_once('.').unwrap().0.to_owned());
    for (path, status, code) in [
        (changed, 403, "link_invalid"),
        (unsigned, 403, "link_invalid"),
        (format!("{link}x"), 403, "link_invalid"),
        (link.replace("%2F", "%2f."), 403, "link_invalid"),
        (link.replace("%2F", "%FF"), 403, "link_invalid"),
        (sign("other-secret", &id, later()), 403, "link_invalid"),
        (sign("dev-secret-that-everybody-knows", &id, 1_700_000_000), 410, "link_expired"),
        (sign("dev-secret-that-everybody-knows", "pier-7/unknown", later()), 404, "not_found"),
        (sign("dev-secret-that-everybody-knows", &format!("pier-7/{}", "0".repeat(64)), later()), 404, "not_found"),
        (sign("dev-secret-that-everybody-knows", "*/x", later()), 404, "not_found"),
    ] {
        let (found, headers, body) = request(address, "GET", &path, &[], "").await;
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{path}");
        assert_eq!(
            (headers["cache-control"].as_str(), headers["referrer-policy"].as_str()),
            ("no-store", "no-referrer")
        );
    }
    assert_eq!(request(address, "GET", &link.replacen("%2F", "/", 1), &[], "").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_opens_old_links_until_it_is_taken_out() {
    let Some(()) = require("nats-server") else { return };
    let mut world = World::start(&[("EVIDENCE_SIGNING_SECRET", "new-secret-of-a-test,old-secret-of-a-test")]).await;
    evidence_streams(&world).await;
    let id = deliver(&world, b"x", "x", None).await;
    let old = sign("old-secret-of-a-test", &id, later());
    assert_eq!(request(world.api.address(), "GET", &old, &[], "").await.0, 200);
    let made = link(&world, &id).await;
    world.api = Api::start(&world.nats.url(), &[("EVIDENCE_SIGNING_SECRET", "new-secret-of-a-test")]).await;
    assert_eq!(request(world.api.address(), "GET", &old, &[], "").await.0, 403);
    assert_eq!(request(world.api.address(), "GET", &made, &[], "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_clients_get_links_that_last() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("EVIDENCE_SIGNING_TTL", "8")]).await;
    evidence_streams(&world).await;
    let id = deliver(&world, b"x", "x", None).await;
    let first = link(&world, &id).await;
    let address = world.api.address();
    eventually(SOON, "the first link is over", || async { request(address, "GET", &first, &[], "").await.0 == 410 })
        .await;
    for path in ["/events/stream?snapshot=true", "/events/stream?since=0"] {
        let got = Sse::open(address, path, &[]).await.next().await.unwrap();
        let fresh = got.data["properties"]["evidence_link"].as_str().unwrap().to_owned();
        // It has half of its time left, and up to a second less.
        assert_eq!(request(address, "GET", &fresh, &[], "").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn the_known_secret_does_not_start_outside_of_dev() {
    for settings in [&[("ENV", "production"), ("BIND_ADDR", "127.0.0.1")], &[("ENV", "dev"), ("BIND_ADDR", "0.0.0.0")]]
    {
        let mut proc = agentforge_harness::Proc::builder(env!("CARGO_BIN_EXE_agentforge-tactical-api"))
            .envs(*settings)
            .env("HTTP_PORT", "0")
            .env("METRICS_PORT", "0")
            .start();
        assert_eq!(proc.wait(SOON).await, 64);
        assert!(proc.full_log().contains("EVIDENCE_SIGNING_SECRET"), "{}", proc.full_log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_links_to_evidence_of_its_own_site_alone() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    evidence_streams(&world).await;
    let (bus, address) = (world.bus().await, world.api.address());
    let id = deliver(&world, b"of pier-7", "a.txt", Some("report")).await;
    let mut sse = Sse::open(address, "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    let body = |site: &str, evidence_id: &str| json!({"id": "m", "site": site, "title": "t", "coordinates": [1, 2], "evidence_id": evidence_id});
    let post = async |site: &str, evidence_id: &str| {
        let body = body(site, evidence_id).to_string();
        let (status, _, answer) =
            request(address, "POST", "/v1/markers", &["Content-Type: application/json"], &body).await;
        (status, String::from_utf8_lossy(&answer).into_owned())
    };
    // By the API: refused, for a marker and with the reason.
    let (status, answer) = post("evil", &id).await;
    assert!(status == 400 && answer.contains("another site"), "{status} {answer}");
    assert_eq!(post("pier-7/x", "report").await.0, 400);
    // By the bus: shown, without a link, and counted.
    bus.publish("tactical.markers.evil.m", &body("pier-7", &id)).await;
    let got = sse.next().await.unwrap();
    assert_eq!(
        (got.data["properties"]["site"].as_str(), &got.data["properties"]["evidence_link"]),
        (Some("evil"), &json!(null))
    );
    world.api.until_metric("tactical_evidence_withheld_total", 1.0).await;
    // An alias is one of the marker's site: another's does not open with it.
    assert_eq!(post("evil", "report").await.0, 201);
    let stolen = sse.next().await.unwrap().data["properties"]["evidence_link"].as_str().unwrap().to_owned();
    assert_eq!(post("pier-7", "report").await.0, 201);
    let own = sse.next().await.unwrap().data["properties"]["evidence_link"].as_str().unwrap().to_owned();
    eventually(SOON, "the alias is known", || async { request(address, "GET", &own, &[], "").await.0 == 200 }).await;
    assert_eq!(request(address, "GET", &stolen, &[], "").await.0, 404);
    // A link of the version before, which named no site.
    assert_eq!(
        request(address, "GET", &sign("dev-secret-that-everybody-knows", "report", later()), &[], "").await.0,
        200
    );
    // A link lasts as long as the setting says, also one that another program signed.
    let year = sign("dev-secret-that-everybody-knows", &id, later() + 31_536_000);
    let (status, _, answer) = request(address, "GET", &year, &[], "").await;
    assert!(status == 403 && String::from_utf8_lossy(&answer).contains("EVIDENCE_SIGNING_TTL"), "{status}");
    assert_eq!(world.api.metric("tactical_evidence_requests_total{outcome=\"too_long\"}").await, 1.0);
}

/// Content that no two places of have the same bytes, without holding it: chunk `n` of 128 KiB.
fn chunk(n: u64) -> Vec<u8> {
    (0..(128 << 10) / 8).flat_map(|at: u64| (n << 20 | at).to_le_bytes()).collect()
}

/// A file of so many chunks in the bucket: its id and its hash.
async fn deliver_large(world: &World, chunks: u64) -> (String, String) {
    let js = world.bus().await.js;
    let mut hash = Sha256::new();
    let mut acks = Vec::new();
    for n in 0..chunks {
        let bytes = chunk(n);
        hash.update(&bytes);
        let mut headers = HeaderMap::new();
        headers.insert("Agentforge-Chunk", n.to_string().as_str());
        let subject = "$O.edge_evidence_blobs.C.big";
        acks.push(js.publish_with_headers(subject, headers, bytes.into()).await.unwrap());
        if n % 5 == 0 {
            // Another upload, in between.
            acks.push(js.publish("$O.edge_evidence_blobs.C.other", "x".into()).await.unwrap());
        }
        if acks.len() >= 64 {
            for ack in acks.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
    let (sha, size) = (hex::encode(hash.finalize()), chunks * (128 << 10));
    let object = format!("pier-7/{sha}");
    let info = json!({"name": object, "bucket": "edge_evidence_blobs", "nuid": "big", "size": size, "chunks": chunks,
        "options": {"max_chunk_size": 128 << 10}});
    let about = format!("$O.edge_evidence_blobs.M.{}", URL_SAFE.encode(&object));
    js.publish(about, info.to_string().into()).await.unwrap().await.unwrap();
    let manifest =
        json!({"bucket": "edge_evidence_blobs", "object": object, "size": size, "sha256": sha, "chunks": chunks});
    let mut headers = HeaderMap::new();
    headers.insert("Agentforge-Manifest", "1");
    let subject = format!("edge.evidence.pier-7.{sha}");
    js.publish_with_headers(subject, headers, manifest.to_string().into()).await.unwrap().await.unwrap();
    (object, sha)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_read_from_any_place_without_memory() {
    let Some(()) = require("nats-server") else { return };
    let chunks: u64 = if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 8192 } else { 1024 };
    let world = World::start(&[]).await;
    evidence_streams(&world).await;
    let (object, sha) = deliver_large(&world, chunks).await;
    let size = chunks * (128 << 10);
    let link = sign("dev-secret-that-everybody-knows", &object, later());
    let address = world.api.address();
    // In parts first: within a chunk, over a border, at the end.
    for (start, len) in [(0, 10), ((128 << 10) - 3, 6), (size / 2 + 5, 300_000), (size - 7, 7)] {
        let range = format!("Range: bytes={start}-{}", start + len - 1);
        let (status, _, body) = request(address, "GET", &link, &[&range], "").await;
        let first = start / (128 << 10);
        let all: Vec<u8> = (first..=(start + len - 1) / (128 << 10)).flat_map(chunk).collect();
        let at = usize::try_from(start % (128 << 10)).unwrap();
        assert_eq!((status, body == all[at..at + usize::try_from(len).unwrap()]), (206, true), "{range}");
    }
    let before = world.api.resident();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let (mut hash, mut read, mut peak) = (Sha256::new(), 0_u64, 0);
    let mut buffer = vec![0; 256 << 10];
    let mut head = Vec::new();
    loop {
        let n = stream.read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        let mut bytes = &buffer[..n];
        if read == 0 && !head.ends_with(b"\r\n\r\n") {
            let start = head.len();
            head.extend_from_slice(bytes);
            let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            bytes = &bytes[end + 4 - start..];
            head.truncate(end + 4);
        }
        hash.update(bytes);
        let due = read / (16 << 20);
        read += bytes.len() as u64;
        if read / (16 << 20) > due {
            peak = peak.max(world.api.resident());
        }
    }
    assert_eq!((read, hex::encode(hash.finalize())), (size, sha));
    let grown = peak.saturating_sub(before);
    assert!(grown < 24 << 20, "{} MiB more for a file of {} MiB", grown >> 20, size >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stall_keep_evidence_from_nobody_and_are_cut() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    evidence_streams(&world).await;
    // More than sockets hold.
    let (object, _) = deliver_large(&world, 64).await;
    let small = deliver(&world, b"small", "small.txt", None).await;
    let (large, small) = (
        sign("dev-secret-that-everybody-knows", &object, later()),
        sign("dev-secret-that-everybody-knows", &small, later()),
    );
    let address = world.api.address();
    let before = world.api.resident();
    let mut stalled = Vec::new();
    let mut statuses = std::collections::BTreeMap::<String, usize>::new();
    for n in 0..160 {
        // All of one network of IPv6.
        let from = format!("X-Forwarded-For: [2001:db8::{n:x}]:99");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {large} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{from}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        let status = String::from_utf8_lossy(&head[9..]).into_owned();
        if status == "200" {
            stalled.push(stream);
        }
        *statuses.entry(status).or_default() += 1;
    }
    // One address may have half of the slots, and gets an error when it has them.
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [("200".to_owned(), 128), ("429".to_owned(), 32)]);
    for path in [&large, &small] {
        let mine = "X-Forwarded-For: 203.0.113.7:5000";
        let (status, _, body) = request(address, "GET", path, &[mine], "").await;
        assert_eq!((status, body.is_empty()), (200, false), "{path}");
    }
    let (status, headers, body) = request(address, "GET", &small, &["X-Forwarded-For: 2001:db8::ffff"], "").await;
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, problem["code"].as_str()), (429, Some("too_many_reads")));
    assert!(headers.contains_key("retry-after"));
    assert!(world.api.metric("tactical_evidence_requests_total{outcome=\"busy\"}").await >= 33.0);
    let grown = world.api.resident().saturating_sub(before) >> 20;
    assert!(grown < 160, "{grown} MiB for {} readers that read nothing", stalled.len());
    // Without progress they are cut, and their places are free again.
    eventually(std::time::Duration::from_secs(90), "the places are free", || async {
        let (status, _, _) = request(address, "GET", &small, &["X-Forwarded-For: 2001:db8::1"], "").await;
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
    // The last of them began a little later than the first.
    eventually(std::time::Duration::from_secs(90), "all are cut", || async {
        let open = world.api.metric("agentforge_http_connections").await;
        if open < 8.0 { Ok(()) } else { Err(open) }
    })
    .await;
    let mut cut = 0;
    for mut stream in stalled {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        cut += usize::from(rest.len() < 4 << 20);
        assert!(read.is_ok(), "it was not cut after {} bytes", rest.len());
    }
    // One whose time was not quite up when its reading began again continues: it makes progress.
    assert!(cut >= 120, "{cut} of 128 were cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_saved_under_its_name() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    evidence_streams(&world).await;
    for (n, (name, saved)) in [
        ("a/plain.png", "plain.png"),
        ("%C3%BC%20%C3%B6.pdf", "_ _.pdf"),
        ("..%2F..%2Fpasswd", "passwd"),
        (".hidden", "_hidden"),
        ("a%22b%5Cc%25.txt", "a_b_c_.txt"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = deliver(&world, format!("content {n}").as_bytes(), name, None).await;
        let link = sign("dev-secret-that-everybody-knows", &id, later());
        let (_, headers, _) = request(world.api.address(), "GET", &link, &[], "").await;
        // What curl and others read that know no filename*.
        let (_, plain) = headers["content-disposition"].split_once("filename=\"").unwrap();
        assert_eq!(plain.split('"').next().unwrap(), saved, "{name}");
    }
}
