//! Writes the seeds that are no text into `fuzz/corpus`: `cargo run -p fuzz --example seeds`. Run it when a message has got a
//! new field or kind; whatever else lies there stays.

use std::fs;

use ed25519_dalek::SigningKey;
use fuzz::corpus::folder;
use fuzz::side_file::sample;
use fuzz::{archive, signed_run};
use piece::{Blob, Digest, Midstate, MidstateRun, NodeId, SignedRun, Standing, prove};
use store::{Config, Store};
use wire::Authorization;
use wire::control::{
    Access, Accusation, Address, Failure, Holding, Kind, Lease, Locality, Neighbour, Offence, Query, Reading,
    Repository, Request, Response, Resume, Retraction, Role, Source, Swarm, Upstream, UpstreamAnswer,
};
use wire::encode;
use wire::exchange::{Answer, Fetch, Hello, Message, Proof, Refusal};

const BLOB: Blob = Blob {
    digest: Digest::from_bytes([5; 32]),
    size: 5 << 20,
};
const NODE: NodeId = NodeId::from_bytes([6; 32]);

fn main() {
    exchange();
    requests();
    responses();
    frames();
    for (number, run) in signed_run::samples().iter().enumerate() {
        put("signed_run", &format!("run{number}.cbor"), &encode(run));
    }
    side_files();
    archives();
}

fn put(decoder: &str, name: &str, bytes: &[u8]) {
    let folder = folder(decoder);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(name), bytes).expect("the seed can be written");
}

fn exchange() {
    let put = |name, bytes: Vec<u8>| put("exchange", name, &bytes);
    put(
        "hello.cbor",
        encode(&Hello {
            protocol: wire::PROTOCOL,
            proofs: vec![Proof([3; 32]), Proof([4; 32])],
            version: "0.1.0".to_owned(),
        }),
    );
    let holding = |bits, media_type: Option<&str>| Message::Holding {
        blob: BLOB,
        bits,
        wants: true,
        media_type: media_type.map(str::to_owned),
        spare: false,
        zone: Some("zone-a".to_owned()),
        imports: true,
    };
    put(
        "holding.cbor",
        encode(&holding(Some(vec![0xf0, 0, 0]), Some("application/x"))),
    );
    put("whole.cbor", encode(&holding(None, None)));
    put(
        "largest.cbor",
        encode(&Message::Holding {
            blob: Blob { size: u64::MAX, ..BLOB },
            bits: Some(vec![0xff; 8192]),
            wants: false,
            media_type: None,
            spare: true,
            zone: None,
            imports: false,
        }),
    );
    put(
        "have.cbor",
        encode(&Message::Have {
            digest: BLOB.digest,
            ranges: vec![(0, 1), (7, 12), (u32::MAX, u32::MAX)],
            load: 3,
        }),
    );
    put("gone.cbor", encode(&Message::Gone { digest: BLOB.digest }));
    put(
        "fetch.cbor",
        encode(&Fetch {
            digest: BLOB.digest,
            size: BLOB.size,
            piece: 19,
            runs: true,
        }),
    );
    put(
        "piece.cbor",
        encode(&Answer::Piece {
            runs: signed_run::samples(),
        }),
    );
    put("refused.cbor", encode(&Answer::Refused { refusal: Refusal::Busy }));
}

fn source() -> Source {
    Source {
        repository: Repository {
            registry: "registry.example:5000".to_owned(),
            name: "org/model".to_owned(),
        },
        kind: Kind::Blob,
    }
}

fn failure() -> Failure {
    Failure {
        status: 429,
        message: "the registry answered 429".to_owned(),
        retry_after: Some(7),
        challenge: Some("Bearer realm=\"https://auth.example/token\"".to_owned()),
    }
}

fn holding() -> Holding {
    Holding {
        blob: BLOB,
        pieces: 4,
        wants: true,
        media_type: Some("application/x".to_owned()),
        reading: Some(Reading {
            epoch: 3,
            boundary: 4,
            midstate: Some(Midstate::START),
            source: source(),
            access: Access::Public,
        }),
    }
}

fn locality() -> Locality {
    Locality {
        host: Some("host".to_owned()),
        rack: None,
        zone: Some("zone".to_owned()),
    }
}

fn address(text: &str) -> Address {
    Address(text.parse().expect("it is an address"))
}

fn swarm() -> Swarm {
    Swarm {
        size: Some(BLOB.size),
        media_type: Some("application/x".to_owned()),
        neighbours: vec![Neighbour {
            node: NODE,
            data: address("[2001:db8::1]:7654"),
            role: Role::Seed,
            locality: locality(),
        }],
        readers: vec![NODE],
        lease: Some(Lease {
            epoch: 4,
            source: source(),
            resume: Some(Resume {
                boundary: 2,
                midstate: Midstate::START,
            }),
        }),
        revoked: Some(3),
        access: Some(Access::Private),
        failure: Some(failure()),
        about: Some(source()),
        retracted: Some(Retraction {
            epoch: 3,
            by: Some(NODE),
        }),
    }
}

fn requests() {
    let put = |name: &str, request: Request| put("control", &format!("request-{name}.cbor"), &encode(&request));
    put(
        "register",
        Request::Register {
            protocol: wire::PROTOCOL,
            role: Role::Peer,
            data: address("0.0.0.0:7654"),
            locality: locality(),
            holdings: vec![holding()],
            more: true,
        },
    );
    put(
        "join",
        Request::Join {
            digest: BLOB.digest,
            size: Some(BLOB.size),
            source: source(),
            urgent: true,
        },
    );
    put(
        "report",
        Request::Report {
            holdings: vec![holding()],
            gone: vec![BLOB.digest],
            failed: vec![(BLOB.digest, 3, failure())],
            accusations: vec![Accusation {
                node: NODE,
                digest: BLOB.digest,
                offence: Offence::WrongBytes,
            }],
            lonely: vec![BLOB.digest],
        },
    );
    let queries = [
        Query::Tag { tag: "v1".to_owned() },
        Query::Probe {
            digest: BLOB.digest,
            kind: Kind::Manifest,
        },
        Query::Tags {
            query: "n=5".to_owned(),
        },
        Query::Referrers {
            digest: BLOB.digest,
            query: String::new(),
        },
        Query::Ping,
    ];
    for (number, query) in queries.into_iter().enumerate() {
        let repository = source().repository;
        let upstream = Upstream { repository, query };
        put(&format!("upstream{number}"), Request::Upstream { upstream });
    }
    put(
        "update",
        Request::Update {
            digest: BLOB.digest,
            swarm: swarm(),
        },
    );
    put("lookup", Request::Lookup { digest: BLOB.digest });
    put(
        "preheat",
        Request::Preheat {
            blobs: vec![(BLOB, source())],
            to: Some(Role::Peer),
        },
    );
    let shown = |value| Authorization::from_header(value).ok().flatten();
    let upstream = Upstream {
        repository: source().repository,
        query: Query::Ping,
    };
    for (number, authorization) in [None, shown("Basic dTpw")].into_iter().enumerate() {
        let upstream = upstream.clone();
        let request = Request::Authorised {
            upstream,
            authorization,
        };
        put(&format!("authorised{number}"), request);
    }
    put(
        "lend",
        Request::Lend {
            digest: BLOB.digest,
            source: source(),
            authorization: shown("Bearer a.b.c").expect("it is a credential"),
        },
    );
}

fn responses() {
    let put = |name: &str, response: Response| put("control", &format!("response-{name}.cbor"), &encode(&response));
    put("registered", Response::Registered { report_every: 5000 });
    put("joined", Response::Joined { swarm: swarm() });
    put(
        "reported",
        Response::Reported {
            known: true,
            swarms: vec![(BLOB.digest, swarm())],
        },
    );
    let answers = [
        UpstreamAnswer::Content {
            blob: BLOB,
            media_type: "application/x".to_owned(),
            access: Access::Public,
        },
        UpstreamAnswer::Document {
            body: b"{\"tags\":[]}".to_vec(),
            media_type: "application/json".to_owned(),
            link: Some("</v2/a/tags/list?last=b>; rel=\"next\"".to_owned()),
            filters: Some("artifactType".to_owned()),
            access: Access::Private,
        },
        UpstreamAnswer::Failed { failure: failure() },
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        put(&format!("upstream{number}"), Response::Upstream { answer });
    }
    put(
        "found",
        Response::Found {
            data: address("192.0.2.1:7654"),
            role: Role::Seed,
            holding: Some(holding()),
        },
    );
    put("taken", Response::Taken);
    let reason = "not by this node".to_owned();
    put("refused", Response::Refused { reason });
}

fn frames() {
    let stream = [
        wire::encode_frame(&"one"),
        wire::encode_frame(&"two"),
        wire::encode_frame(&""),
    ]
    .concat();
    put("frames", "three", &[&[2], &stream[..]].concat());
    put("frames", "longest", &[&[9, 0, 0, 0, 64][..], &[7; 64]].concat());
    put(
        "frames",
        "too-long",
        &[&[0, 0, 0, 0, 1, 7, 0, 0, 0, 65][..], &[7; 65]].concat(),
    );
}

/// What a store writes about a blob at several moments, without the checksums.
fn side_files() {
    let sample = sample();
    let geometry = sample.blob.geometry();
    let dir = archive::scratch();
    let store = Store::open(Config::at(dir.path())).expect("a store can be made");
    let side = dir.path().join("side").join(sample.blob.digest.hex());
    let file = store
        .begin(sample.blob, Some("application/x"))
        .expect("a blob can be begun");
    let keep = |name: &str, how: u8| {
        let bytes = fs::read(&side).expect("there is a side file");
        put("side_file", name, &[&[how], &opened(&bytes)[..]].concat());
        // As it is, checksums included.
        put("side_file", &format!("{name}-raw"), &[&[how | 4], &bytes[..]].concat());
    };
    keep("begun", 0);
    let mut other_size = opened(&fs::read(&side).expect("there is a side file"));
    let size = (sample.blob.size as u32).to_be_bytes();
    let at = other_size
        .windows(4)
        .position(|bytes| bytes == size)
        .expect("the first record has the size");
    other_size[at + 3] ^= 1;
    put("side_file", "finished-other-size", &[&[1], &other_size[..]].concat());
    let run = MidstateRun {
        blob: sample.blob,
        first: 1,
        midstates: sample.midstates.to_vec(),
        standing: Standing::Reader { epoch: 1 },
    };
    let run = SignedRun::sign(run, &SigningKey::from_bytes(&[1; 32])).expect("it lies inside the blob");
    file.accept(run).expect("it is the first");
    file.add_source("registry.example/org/model").expect("it is one");
    store.pin(&sample.blob.digest).expect("it can be pinned");
    for piece in geometry.pieces() {
        let range = geometry.range(piece);
        let bytes = &sample.bytes[range.start as usize..range.end as usize];
        let proven = prove(&file.link(piece).expect("its ends are known"), vec![bytes]).expect("it is itself");
        file.write(proven).expect("it can be written");
        keep(
            &format!("pieces{}", piece.get() + 1),
            if geometry.is_last(piece) { 1 } else { 0 },
        );
    }
    keep("damaged", 2);
    keep("finished-damaged", 3);
}

/// The records of a side file without its checksums.
fn opened(file: &[u8]) -> Vec<u8> {
    let mut rest = &file[b"packswarm side 1\n".len()..];
    let mut records = Vec::new();
    while let Some(length) = rest.first_chunk::<2>() {
        let end = 2 + usize::from(u16::from_be_bytes(*length));
        records.extend_from_slice(&rest[..end]);
        rest = &rest[end + 8..];
    }
    records
}

fn archives() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry = |kind, path: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, content).expect("memory can be written");
    };
    use tar::EntryType as Kind;
    entry(Kind::Directory, "dir/", "", b"");
    entry(Kind::Regular, "dir/file", "", b"content");
    entry(Kind::Symlink, "dir/link", "file", b"");
    entry(Kind::Link, "again", "dir/file", b"");
    entry(
        Kind::XHeader,
        "pax",
        "",
        b"30 mtime=1600000000.123456789\n19 path=other/name\n",
    );
    entry(Kind::Regular, "file", "", b"other");
    entry(Kind::GNULongName, "././@LongLink", "", &[b'n'; 200]);
    entry(Kind::Regular, "short", "", b"");
    let tar = tar.into_inner().expect("memory can be written");
    for (name, how) in [("tar", 0), ("tar-gzip", 3), ("tar-zstd", 4)] {
        put("archive", name, &[&[how], &tar[..]].concat());
    }
    put("archive", "gzip", &[&[5 | 8], &archive::gzip(&tar)[..]].concat());
    put("archive", "zstd", &[&[6 | 8], &archive::zstd(&tar)[..]].concat());
    let zeros = vec![0; 1 << 20];
    put("archive", "gzip-bomb", &[&[5 | 8], &archive::gzip(&zeros)[..]].concat());
    put("archive", "zstd-bomb", &[&[6 | 8], &archive::zstd(&zeros)[..]].concat());
}
