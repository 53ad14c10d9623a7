//! The mirror, as clients of all manners see it.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::http::{Request, Response};
use e2e::process::run;
use e2e::registry::{PASSWORD, Service, USER};
use e2e::{Cluster, Lab, Model, Options, Registry, Throttle, memory, tree, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One seed and one peer.
fn pair(lab: &Lab, peer_config: &str) -> Cluster {
    Cluster::start(
        lab,
        &Options {
            seeds: 1,
            peers: 1,
            peer_config,
            ..Options::default()
        },
    )
}

#[test]
fn an_oci_client_finds_what_the_registry_has() {
    let lab = Lab::new("oci-client");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = pair(&lab, "");
    let (mirror, ns) = (cluster.peers[0].mirror(), format!("?ns={}", registry.address()));
    let ask = |method, path: &str, headers: &[(&str, &str)]| {
        let path = format!("/v2/{}/{path}{ns}", model.repository());
        headers
            .iter()
            .fold(Request::new(method, mirror, &path), |request, (name, value)| {
                request.header(name, value)
            })
            .send()
    };

    let ping = Request::get(mirror, "/v2/").send();
    assert_eq!(ping.status, 200);

    // A tag, as containers/image asks: one `Accept` line per type, ours not the first.
    let accepts = [
        ("Accept", "application/vnd.docker.distribution.manifest.v2+json"),
        ("Accept", MANIFEST),
    ];
    for method in ["HEAD", "GET"] {
        let answer = ask(method, "manifests/v1", &accepts);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), Some(model.digest().as_str()));
        assert_eq!(answer.header("content-type"), Some(MANIFEST));
        assert_eq!(
            answer.header("content-length"),
            Some(model.manifest().len().to_string().as_str())
        );
        assert_eq!(
            answer.header("oci-namespace"),
            Some(registry.address().to_string().as_str())
        );
        assert_eq!(answer.body, if method == "GET" { model.manifest() } else { &[] });
    }
    assert_eq!(
        ask("GET", &format!("manifests/{}", model.digest()), &accepts).body,
        model.manifest()
    );

    // A blob, whole and in ranges. Compression would lose its length.
    let blob = model.largest();
    let path = format!("blobs/{}", blob.digest);
    let answer = ask("HEAD", &path, &[("Accept-Encoding", "gzip")]);
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some(blob.size.to_string().as_str()))
    );
    assert_eq!(
        (answer.header("accept-ranges"), answer.header("content-encoding")),
        (Some("bytes"), None)
    );
    assert_eq!(answer.header("docker-content-digest"), Some(blob.digest.as_str()));
    let part = ask("GET", &path, &[("Range", "bytes=1000-1999")]);
    assert_eq!(part.status, 206);
    assert_eq!(
        part.header("content-range"),
        Some(format!("bytes 1000-1999/{}", blob.size).as_str())
    );
    let whole = ask("GET", &path, &[]);
    assert_eq!(
        (whole.status, tree::digest(whole.body.as_slice())),
        (200, blob.digest.clone())
    );
    assert_eq!(part.body, whole.body[1000..2000]);
    assert_eq!(
        ask("GET", &path, &[("Range", "bytes=-10")]).body,
        whole.body[whole.body.len() - 10..]
    );
    let beyond = format!("bytes={}-", blob.size);
    assert_eq!(ask("GET", &path, &[("Range", &beyond)]).status, 416);

    // What is not kept as blobs comes from the registry at once.
    let tags = ask("GET", "tags/list", &[]);
    assert_eq!((tags.status, &tags.json()["tags"][0]), (200, &"v1".into()));
    // This registry does not know referrers; clients then look for a tag.
    assert_eq!(ask("GET", &format!("referrers/{}", model.digest()), &[]).status, 404);

    registry.assert_only_seeds();
    let manifests = registry.requests().iter().filter(|entry| entry.asks_manifest()).count();
    assert_eq!(manifests, 1, "four times asked for, fetched once");
}

#[test]
fn the_registrys_own_refusals_reach_the_client() {
    let lab = Lab::new("refusals");
    let model = Model::small(&lab);
    let mut registry = Registry::start(&lab, &[&model]);
    let cluster = pair(&lab, "");
    let mirror = cluster.peers[0].mirror();
    let get = |path: &str| {
        Request::get(mirror, &format!("/v2/{path}?ns={}", registry.address()))
            .header("Accept", MANIFEST)
            .send()
    };
    let refused = |answer: Response, status: u16, code: &str| {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.json()["errors"][0]["code"], code);
    };
    let repository = model.repository();
    let nothing = format!("sha256:{}", "0".repeat(64));
    refused(get(&format!("{repository}/manifests/v2")), 404, "MANIFEST_UNKNOWN");
    refused(get("models/nobody/manifests/v1"), 404, "MANIFEST_UNKNOWN");
    refused(
        get(&format!("{repository}/manifests/{nothing}")),
        404,
        "MANIFEST_UNKNOWN",
    );
    refused(get(&format!("{repository}/blobs/{nothing}")), 404, "BLOB_UNKNOWN");
    let invalid = get(&format!("{repository}/blobs/sha256:abc"));
    assert!([400, 404].contains(&invalid.status), "{}", invalid.status);
    let written = Request::new(
        "DELETE",
        mirror,
        &format!("/v2/{repository}/manifests/v1?ns={}", registry.address()),
    )
    .send();
    refused(written, 405, "UNSUPPORTED");
    // And one that does not answer at all is an error of the gateway, in words.
    let address = registry.address();
    registry.stop();
    let path = format!("/v2/models/other/manifests/v1?ns={address}");
    let answer = Request::get(mirror, &path).header("Accept", MANIFEST).send();
    assert!(
        (500..600).contains(&answer.status) && answer.status != 500,
        "{}: {}",
        answer.status,
        answer.text()
    );
}

#[test]
fn every_way_to_name_the_registry_leads_to_it() {
    let lab = Lab::new("names");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let address = registry.address();
    let config = format!(
        "[mirror]\ndefault_registry = \"{address}\"\naliases = {{ hub = \"{address}\" }}\nallow = [\"{address}\"]\n"
    );
    let cluster = pair(&lab, &config);
    let mirror = cluster.peers[0].mirror();
    let digest = |path: String| {
        let answer = Request::get(mirror, &path).header("Accept", MANIFEST).send();
        (answer.status, answer.header("docker-content-digest").map(str::to_owned))
    };
    let (repository, found) = (model.repository(), (200, Some(model.digest())));
    assert_eq!(digest(format!("/v2/{repository}/manifests/v1?ns={address}")), found);
    assert_eq!(
        digest(format!("/v2/127.0.0.1__{}/{repository}/manifests/v1", address.port())),
        found
    );
    assert_eq!(digest(format!("/v2/hub/{repository}/manifests/v1")), found);
    assert_eq!(digest(format!("/v2/{repository}/manifests/v1")), found);
    // What is not allowed is refused at once, so that runtimes go elsewhere.
    assert_eq!(
        digest(format!("/v2/{repository}/manifests/v1?ns=elsewhere.example")),
        (404, None)
    );
}

#[test]
fn a_client_that_leaves_or_dawdles_is_nobodys_trouble() {
    let lab = Lab::new("dawdlers");
    let model = Model::one_file(&lab, 192);
    let registry = Registry::start(&lab, &[&model]);
    let link = Throttle::start(registry.address(), 48 * MIB);
    let cluster = pair(&lab, "");
    let peer = &cluster.peers[0];
    let blob = model.largest();
    let path = format!("/v2/{}/blobs/{}?ns={}", model.repository(), blob.digest, link.address());

    // Twenty that take a few bytes and then nothing, and one that leaves.
    let mut dawdlers: Vec<_> = (0..20)
        .map(|_| Request::get(peer.mirror(), &path).open().expect("it answers"))
        .collect();
    for dawdler in &mut dawdlers {
        dawdler.read_exact(&mut [0; 100]).expect("the first piece comes");
    }
    let mut leaver = Request::get(peer.mirror(), &path).open().expect("it answers");
    leaver.read_exact(&mut [0; 1000]).expect("the first piece comes");
    drop(leaver);
    // Those who stay get everything meanwhile, some in many ranges at a time.
    thread::scope(|threads| {
        threads.spawn(|| {
            run(&mut pull_through(
                &lab,
                peer.mirror(),
                &model.reference(link.address()),
                &lab.path("pulled"),
            ))
        });
        for number in 0..32_u64 {
            let (from, to) = (number * blob.size / 32, (number + 1) * blob.size / 32);
            let (path, model) = (&path, &model);
            threads.spawn(move || assert_range(peer.mirror(), path, from..to, model));
        }
    });
    tree::assert_same(&model.files(), &lab.path("pulled"));
    // A slow one still gets every byte, in the end.
    let mut rest = Vec::new();
    dawdlers[0].read_to_end(&mut rest).expect("the mirror has waited");
    assert_eq!(rest.len() as u64, blob.size - 100);
    registry.assert_read_once(&model);
    cluster.memory.assert_below(256 * MIB);
}

/// Panics unless the bytes of the largest blob in this range are right.
fn assert_range(mirror: SocketAddr, path: &str, range: Range<u64>, model: &Model) {
    let header = format!("bytes={}-{}", range.start, range.end - 1);
    let answer = Request::get(mirror, path).header("Range", &header).send();
    assert_eq!(
        (answer.status, answer.body.len() as u64),
        (206, range.end - range.start)
    );
    let source = File::open(
        model
            .files()
            .join(model.largest().path.as_ref().expect("it is a raw layer")),
    );
    let mut wanted = vec![0; answer.body.len()];
    source
        .and_then(|source| source.read_exact_at(&mut wanted, range.start))
        .expect("it is there");
    assert!(answer.body == wanted, "wrong bytes in {header}");
}

#[test]
fn a_download_that_its_client_left_is_there_for_the_next() {
    let lab = Lab::new("left");
    let model = Model::one_file(&lab, 192);
    let registry = Registry::start(&lab, &[&model]);
    let link = Throttle::start(registry.address(), 48 * MIB);
    let cluster = pair(&lab, "");
    let peer = &cluster.peers[0];
    let path = format!(
        "/v2/{}/blobs/{}?ns={}",
        model.repository(),
        model.largest().digest,
        link.address()
    );
    let mut leaver = Request::get(peer.mirror(), &path).open().expect("it answers");
    leaver.read_exact(&mut [0; 1000]).expect("the first piece comes");
    drop(leaver);
    link.set_rate(0);
    let answer = Request::get(peer.mirror(), &path).send();
    assert_eq!(tree::digest(answer.body.as_slice()), model.largest().digest);
    wait::until_true("the registry's log", SOON, || {
        registry.bytes_of(&model.largest().digest) >= model.largest().size
    });
    assert_eq!(registry.bytes_of(&model.largest().digest), model.largest().size);
    let now = memory::rss_anon(peer.process().id()).expect("it runs");
    assert!(now < 256 * MIB, "{} MiB of anonymous memory", now / MIB);
}

#[test]
fn a_private_repository_is_refused_unless_the_operator_says_otherwise() {
    let lab = Lab::new("private");
    let model = Model::small(&lab);
    let registry = Registry::named(&lab, "registry", &[&model], Service::Private);
    let address = registry.address();
    let credentials = lab.file("credentials", &format!("{USER}:{PASSWORD}\n"));
    fs::set_permissions(&credentials, Permissions::from_mode(0o600)).expect("it is ours");
    let known = format!("[registry.\"{address}\"]\ncredentials_file = {credentials:?}\n");
    let open = format!("{known}[access]\nlocal = \"node\"\n");
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            seed_config: &known,
            peer_config: &known,
            ..Options::default()
        },
    );
    let opened = cluster.node(&lab, e2e::Role::Peer, "opened", &open);
    let path = format!("/v2/{}/manifests/v1?ns={address}", model.repository());
    let ask = |mirror| Request::get(mirror, &path).header("Accept", MANIFEST).send();

    let refused = ask(cluster.peers[0].mirror());
    let challenge = refused.header("www-authenticate").unwrap_or_default();
    assert_eq!(
        (refused.status, challenge),
        (401, "Basic realm=\"e2e\""),
        "the registry's own words"
    );
    let to = lab.path("pulled");
    run(&mut pull_through(&lab, opened.mirror(), &model.reference(address), &to));
    tree::assert_same(&model.files(), &to);
    assert_eq!(
        ask(cluster.peers[0].mirror()).status,
        401,
        "a neighbour that has it changes nothing"
    );
    for word in [PASSWORD, "cmVhZGVyOnNlY3JldA"] {
        let logs = cluster.nodes().chain([&cluster.scheduler, &opened]).map(e2e::Node::log);
        assert!(logs.into_iter().all(|log| !log.contains(word)), "a secret is in a log");
    }
}
