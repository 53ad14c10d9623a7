//! A private model is for those whom its registry serves, whoever holds its bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use e2e::clients::skopeo::skopeo_as;
use e2e::clients::{Containerd, curl, pull_through};
use e2e::http::{Request, Response};
use e2e::process::{output, run};
use e2e::registry::{PASSWORD, Service, USER};
use e2e::tokens::{Tokens, User};
use e2e::{Cluster, Lab, Model, Node, Options, Registry, base64, secrets, tree, wait};

const SOON: Duration = Duration::from_secs(60);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const READER: User = User {
    name: "reader",
    password: "correct-horse-battery",
    repositories: &["models/small"],
};
/// May read another repository of the same registry.
const OTHER: User = User {
    name: "other",
    password: "staple-wrong-horse",
    repositories: &["models/other"],
};
/// Nodes that log much, so that there is something to look through for secrets.
const LOUD: &str = "[log]\nfilter = \"debug\"\n";

/// What clients ask of a mirror.
struct Client<'a> {
    mirror: SocketAddr,
    registry: SocketAddr,
    repository: &'a str,
    authorization: Option<&'a str>,
}

impl Client<'_> {
    fn ask(&self, method: &str, rest: &str, range: Option<&str>) -> Response {
        let path = format!("/v2/{}/{rest}?ns={}", self.repository, self.registry);
        let mut request = Request::new(method, self.mirror, &path).header("Accept", MANIFEST);
        request = self
            .authorization
            .into_iter()
            .fold(request, |request, shown| request.header("Authorization", shown));
        range
            .into_iter()
            .fold(request, |request, range| request.header("Range", range))
            .send()
    }

    /// Panics if any way of asking brings anything of the model.
    fn gets_nothing(&self, model: &Model, why: &str) {
        let blob = model.largest();
        let (by_tag, by_digest) = ("manifests/v1".to_owned(), format!("manifests/{}", model.digest()));
        let of_blob = format!("blobs/{}", blob.digest);
        for (method, rest, range) in [
            ("GET", &by_tag, None),
            ("HEAD", &by_tag, None),
            ("GET", &by_digest, None),
            ("HEAD", &by_digest, None),
            ("GET", &of_blob, None),
            ("GET", &of_blob, Some("bytes=0-99")),
            ("GET", &of_blob, Some("bytes=-100")),
            ("HEAD", &of_blob, None),
            ("GET", &format!("referrers/{}", model.digest()), None),
            ("GET", &"tags/list".to_owned(), None),
        ] {
            let answer = self.ask(method, rest, range);
            let status = answer.status;
            assert!(
                matches!(status, 401 | 403 | 404 | 502 | 503 | 504),
                "{why}: {method} {rest}: {status}"
            );
            assert!(answer.body.len() < 2000, "{why}: {method} {rest}: {}", answer.text());
            for header in ["docker-content-digest", "content-range", "etag"] {
                assert_eq!(answer.header(header), None, "{why}: {method} {rest}");
            }
            if !answer.body.is_empty() {
                assert!(answer.json()["errors"].is_array(), "{why}: {method} {rest}");
            }
        }
    }
}

fn cluster(lab: &Lab, peer_config: &str) -> Cluster {
    Cluster::start(
        lab,
        &Options {
            seeds: 2,
            peers: 2,
            scheduler_config: LOUD,
            seed_config: LOUD,
            peer_config,
            ..Options::default()
        },
    )
}

/// Panics unless each byte of each blob left the registry once, to a seed.
fn assert_served_once(registry: &Registry, model: &Model) {
    for blob in model.blobs() {
        wait::until_true("the registry's log", SOON, || {
            registry.bytes_of(&blob.digest) >= blob.size
        });
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "bytes of {}", blob.digest);
    }
    let manifests = registry.requests();
    let fetched = manifests
        .iter()
        .filter(|entry| entry.method == "GET" && entry.asks_manifest() && entry.status == 200);
    assert_eq!(fetched.count(), 1, "manifests are fetched once: {manifests:#?}");
    // A client that the mirror refuses asks the registry itself, which refuses it too.
    let requests = registry.requests();
    let others = requests
        .iter()
        .find(|entry| entry.role() != Some("seed") && entry.status < 300);
    assert_eq!(others, None, "not from a seed");
}

fn assert_no_secret(lab: &Lab, cluster: &Cluster, words: &[String]) {
    let nodes = || cluster.nodes().chain([&cluster.scheduler]);
    let places: Vec<_> = nodes()
        .flat_map(|node| {
            let setup = node.setup();
            let ready = lab.path(format!("{}.ready", setup.name));
            [setup.data.clone(), setup.log.clone(), ready]
        })
        .collect();
    assert!(
        places.iter().all(|place| place.exists()),
        "there is something to look through: {places:?}"
    );
    let places: Vec<&Path> = places.iter().map(AsRef::as_ref).collect();
    secrets::assert_none(words, &places, nodes());
}

fn pulls_by_curl(lab: &Lab, node: &Node, registry: &Registry, model: &Model, authorization: &str) {
    let to = lab.path(format!("curl-{}", node.name()));
    let places = (node.mirror(), registry.address());
    run(&mut curl::curl_as(
        lab,
        places,
        model,
        5 << 20,
        &to,
        Some(authorization),
    ));
    model.assert_blobs(|blob| curl::join(&to, blob));
    assert_eq!(
        std::fs::read(to.join("manifest")).expect("it was fetched"),
        model.manifest()
    );
}

fn pulls_by_ctr(lab: &Lab, node: &Node, registry: &Registry, model: &Model, user: &str) {
    let containerd = Containerd::start(lab, &format!("ctr-{}", node.name()), registry.address(), node.mirror());
    let reference = model.reference(registry.address());
    let refused = output(&mut containerd.fetch(&reference));
    assert!(!refused.status.success(), "without credentials");
    run(&mut containerd.fetch_as(&reference, Some(user)));
    model.assert_blobs(|blob| containerd.blob(blob));
}

/// containers/image takes the credentials of the mirror's own name, and its challenge from `/v2/`.
fn pulls_by_skopeo(lab: &Lab, node: &Node, registry: &Registry, model: &Model, user: &str, location: &str) {
    let (mirror, registry) = (node.mirror(), registry.address());
    let text = format!(
        "[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\ninsecure = true\nblocked = false\n\
         [[registry.mirror]]\nlocation = \"{mirror}{location}\"\ninsecure = true\n"
    );
    let config = lab.file("skopeo.conf", &text);
    let auth = format!(
        "{{\"auths\":{{\"{mirror}\":{{\"auth\":\"{}\"}}}}}}",
        base64(user.as_bytes())
    );
    let (auth, none) = (lab.file("skopeo.json", &auth), lab.file("skopeo-none.json", "{}"));
    let reference = model.reference(registry);
    let to = lab.path("skopeo");
    assert!(
        !output(&mut skopeo_as(&config, &reference, &to, &none)).status.success(),
        "without credentials"
    );
    run(&mut skopeo_as(&config, &reference, &to, &auth));
    model.assert_blobs(|blob| to.join(blob.hex()));
}

/// By the user's own credentials, in the file that Docker has them in.
fn pulls_by_packswarm(lab: &Lab, node: &Node, registry: &Registry, model: &Model, user: &str) {
    let (to, reference) = (lab.path("packswarm"), model.reference(registry.address()));
    let mut command = pull_through(lab, node.mirror(), &reference, &to);
    let refused = output(&mut command);
    assert!(!refused.status.success(), "without credentials");
    let config = format!(
        "{{\"auths\":{{\"{}\":{{\"auth\":\"{}\"}}}}}}",
        registry.address(),
        base64(user.as_bytes())
    );
    std::fs::write(lab.dir("docker-config").join("config.json"), config).expect("the lab is writable");
    run(&mut command);
    tree::assert_same(&model.files(), &to);
}

#[test]
fn a_registry_with_tokens_decides_client_by_client() {
    let lab = Lab::new("private-tokens");
    let model = Model::small(&lab);
    let tokens = Tokens::start(&lab.dir("tokens"), &[READER, OTHER]);
    let registry = Registry::with_tokens(&lab, "registry", &[&model], &tokens);
    // containers/image needs to be told at `/v2/` how to authenticate.
    let address = registry.address();
    let config = format!("{LOUD}[mirror]\ndefault_registry = \"{address}\"\nchallenge = \"{address}\"\n");
    let cluster = cluster(&lab, &config);
    let repository = model.repository();
    let client = |node: &Node, authorization| Client {
        mirror: node.mirror(),
        registry: registry.address(),
        repository: &repository,
        authorization,
    };
    let (right, expired) = (
        tokens.bearer(&READER, &repository),
        tokens.expired(&READER, &repository),
    );
    let others = [
        tokens.bearer(&OTHER, &repository),
        tokens.bearer(&OTHER, "models/other"),
        OTHER.basic(),
    ];
    let nobody = |when: &str| {
        for node in &cluster.peers {
            client(node, None).gets_nothing(&model, &format!("{when}, with nothing"));
            let wrong = [
                &expired,
                &others[0],
                &others[1],
                "Basic Og==",
                "Bearer x.y.z",
                &others[2],
            ];
            for shown in wrong {
                client(node, Some(shown)).gets_nothing(&model, &format!("{when}, with {shown}"));
            }
            for (name, shown) in [("models/other", &others[1]), ("models/nowhere", &right)] {
                let elsewhere = Client {
                    repository: name,
                    ..client(node, Some(shown))
                };
                elsewhere.gets_nothing(&model, &format!("{when}, by the name {name}"));
            }
        }
    };
    nobody("before anybody has it");

    // The challenge is the registry's, word by word.
    let path = format!("/v2/{repository}/manifests/v1");
    let own = Request::get(registry.address(), &path).send();
    let relayed = client(&cluster.peers[0], None).ask("GET", "manifests/v1", None);
    assert_eq!((own.status, relayed.status), (401, 401));
    assert_eq!(relayed.header("www-authenticate"), own.header("www-authenticate"));

    pulls_by_curl(&lab, &cluster.peers[0], &registry, &model, &right);
    let user = format!("{}:{}", READER.name, READER.password);
    pulls_by_ctr(&lab, &cluster.peers[1], &registry, &model, &user);
    pulls_by_skopeo(&lab, &cluster.peers[0], &registry, &model, &user, "");
    assert_served_once(&registry, &model);

    for node in &cluster.peers {
        node.wait_complete(&model.largest().digest, SOON);
    }
    nobody("though every node has it");
    assert_eq!(
        client(&cluster.peers[1], Some(&right))
            .ask("GET", "tags/list", None)
            .status,
        200
    );

    let mut words = tokens.issued();
    words.extend([READER.password, OTHER.password].map(str::to_owned));
    words.extend([READER, OTHER].map(|user| user.basic()["Basic ".len()..].to_owned()));
    assert_no_secret(&lab, &cluster, &words);
}

#[test]
fn a_registry_with_passwords_decides_client_by_client_and_its_outage_refuses() {
    let lab = Lab::new("private-passwords");
    let model = Model::small(&lab);
    let mut registry = Registry::named(&lab, "registry", &[&model], Service::Private);
    let forgetful = "[access]\nttl = \"1s\"\n";
    let seed_config = format!("{LOUD}[registry]\nretries = 0\n");
    let config = |rest: &str| format!("{LOUD}[mirror]\nchallenge = \"{}\"\n{rest}", registry.address());
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 2,
            scheduler_config: LOUD,
            seed_config: &seed_config,
            ..Options::default()
        },
    );
    let strict = cluster.node(&lab, e2e::Role::Peer, "strict", &config(forgetful));
    let graceful = cluster.node(
        &lab,
        e2e::Role::Peer,
        "graceful",
        &config(&format!("{forgetful}grace = \"1h\"\n")),
    );
    cluster.wait_joined(4);
    let (repository, address) = (model.repository(), registry.address());
    let client = |node: &Node, authorization| Client {
        mirror: node.mirror(),
        registry: address,
        repository: &repository,
        authorization,
    };
    let user = format!("{USER}:{PASSWORD}");
    let (right, wrong) = (
        format!("Basic {}", base64(user.as_bytes())),
        format!("Basic {}", base64(format!("{USER}:guessed-password").as_bytes())),
    );
    let nobody = |when: &str| {
        for node in [&strict, &graceful] {
            for shown in [None, Some("Basic Og=="), Some(&*wrong)] {
                client(node, shown).gets_nothing(&model, &format!("{when}, with {shown:?}"));
            }
        }
    };
    nobody("before anybody has it");
    pulls_by_skopeo(
        &lab,
        &strict,
        &registry,
        &model,
        &user,
        &format!("/{}", registry.address().to_string().replace(':', "__")),
    );
    pulls_by_packswarm(&lab, &graceful, &registry, &model, &user);
    pulls_by_curl(&lab, &graceful, &registry, &model, &right);
    pulls_by_ctr(&lab, &graceful, &registry, &model, &user);
    assert_served_once(&registry, &model);
    nobody("though every node has it");

    let (blob, manifest) = (
        format!("blobs/{}", model.largest().digest),
        format!("manifests/{}", model.digest()),
    );
    for node in [&strict, &graceful] {
        for rest in [&blob, &manifest] {
            assert_eq!(client(node, Some(&right)).ask("HEAD", rest, None).status, 200);
        }
    }
    registry.stop();
    let refused = wait::until("the end of a verdict", SOON, || {
        let answer = client(&strict, Some(&right)).ask("GET", &blob, Some("bytes=0-99"));
        (answer.status != 206).then_some(answer)
    });
    assert!(
        matches!(refused.status, 503 | 504),
        "{}: {}",
        refused.status,
        refused.text()
    );
    nobody("though the registry cannot be asked");
    let served = client(&graceful, Some(&right)).ask("GET", &blob, None);
    assert_eq!(
        (served.status, tree::digest(served.body.as_slice())),
        (200, model.largest().digest.clone())
    );
    assert_eq!(
        client(&graceful, Some(&right)).ask("GET", &manifest, None).body,
        model.manifest()
    );

    let words = [right, wrong].map(|shown| shown["Basic ".len()..].to_owned());
    let words = words.into_iter().chain([user, "guessed-password".to_owned()]);
    let words: Vec<String> = words.collect();
    assert_no_secret(&lab, &cluster, &words);
    for node in [&strict, &graceful] {
        secrets::assert_none(&words, &[&node.setup().log, &node.setup().data], [node]);
    }
}
