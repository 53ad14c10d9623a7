use super::*;
use crate::{FileMetadata, LayerKind};

fn layer(packing: Packing, path: &str, content: &[u8], typeflag: Option<u8>) -> Layer {
    Layer {
        blob: Blob {
            digest: Digest::of(content),
            size: content.len() as u64,
        },
        media_type: String::new(),
        kind: LayerKind::Weight,
        packing,
        path: (!path.is_empty()).then(|| TreePath::parse(path).unwrap()),
        metadata: typeflag.map(|typeflag| FileMetadata {
            typeflag,
            ..FileMetadata::default()
        }),
        title: None,
    }
}

fn plan(layers: Vec<Layer>, patterns: &[&str]) -> Result<Plan, UnpackError> {
    let config = Blob {
        digest: Digest::EMPTY,
        size: 0,
    };
    let options = Options {
        include: Include::new(patterns).unwrap(),
        ..Options::default()
    };
    Plan::new(&Artifact { config, layers }, &Config::default(), &options)
}

#[test]
fn the_same_content_is_one_job_and_the_same_place_must_agree() {
    let raw = |path, content| layer(Packing::Raw, path, content, None);
    let planned = plan(
        vec![raw("a", b"1"), raw("b", b"1"), raw("a", b"1"), raw("c", b"22")],
        &[],
    )
    .unwrap();
    assert_eq!((planned.jobs.len(), planned.items, planned.bytes), (2, 3, 4));
    for clash in [raw("a", b"2"), raw("a/b", b"1")] {
        assert!(matches!(
            plan(vec![raw("a", b"1"), clash], &[]),
            Err(UnpackError::Conflict { .. })
        ));
    }
    let twice = layer(Packing::Tar, "", b"t", None);
    assert_eq!(plan(vec![twice.clone(), twice], &[]).unwrap().jobs.len(), 1);
}

#[test]
fn takes_only_layers_that_could_match() {
    let layers = vec![
        layer(Packing::Raw, "w/a.bin", b"1", None),
        layer(Packing::Raw, "config.json", b"2", None),
        layer(Packing::Tar, "single.json", b"3", Some(0)),
        layer(Packing::Tar, "src", b"4", Some(5)),
        layer(Packing::Tar, "", b"5", None),
    ];
    let labels = |patterns: &[&str]| -> Vec<(String, bool)> {
        let name = |job: &Job| match job {
            Job::Raw(job) => (job.targets[0].path.to_string(), false),
            Job::Packed(job) => (job.label.to_string(), job.filtered),
        };
        plan(layers.clone(), patterns).unwrap().jobs.iter().map(name).collect()
    };
    let own = |labels: &[(&str, bool)]| labels.iter().map(|(l, f)| ((*l).to_owned(), *f)).collect::<Vec<_>>();
    assert_eq!(labels(&[]).len(), 5);
    assert_eq!(labels(&["w/*"]), own(&[("w/a.bin", false), ("layer 4", true)]));
    let jsons = [
        ("config.json", false),
        ("single.json", false),
        ("src", true),
        ("layer 4", true),
    ];
    assert_eq!(labels(&["*.json"]), own(&jsons));
    assert_eq!(labels(&["src"]), own(&[("src", false), ("layer 4", true)]));
    assert!(matches!(
        plan(layers[..1].to_vec(), &["*.txt"]),
        Err(UnpackError::NothingIncluded)
    ));
}

#[test]
fn diff_ids_must_be_one_per_layer() {
    let config = Config {
        diff_ids: vec![Digest::EMPTY; 2],
    };
    let artifact = Artifact {
        config: Blob {
            digest: Digest::EMPTY,
            size: 0,
        },
        layers: vec![layer(Packing::Raw, "a", b"1", None)],
    };
    let error = Plan::new(&artifact, &config, &Options::default()).unwrap_err();
    assert!(matches!(error, UnpackError::DiffIdCount { diff_ids: 2, layers: 1 }));
}
