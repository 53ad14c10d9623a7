//! The tools of these tests do what they say.

use e2e::clients::{Containerd, curl, skopeo};
use e2e::process::run;
use e2e::{Lab, Model, Registry, tree};

#[test]
fn models_are_in_the_registry_as_they_were_made() {
    let lab = Lab::new("harness");
    let (small, types) = (Model::small(&lab), Model::every_layer_type(&lab));
    let registry = Registry::start(&lab, &[&small, &types]);
    assert_eq!(types.blobs().len(), 21, "a config and a layer of each type");
    assert!(
        small
            .largest()
            .path
            .as_ref()
            .is_some_and(|path| path.ends_with(".safetensors"))
    );
    for model in [&small, &types] {
        let to = lab.dir(model.repository());
        // Straight from the registry.
        run(&mut curl(
            &lab,
            registry.address(),
            registry.address(),
            model,
            5_000_000,
            &to,
        ));
        assert_eq!(tree::digest_of(&to.join("manifest")), model.digest());
        model.assert_blobs(|blob| curl::join(&to, blob));
        let blob = model.largest();
        assert_eq!(registry.bytes_of(&blob.digest), blob.size);
    }
    assert!(
        registry
            .requests()
            .iter()
            .all(|entry| entry.role().is_none() && entry.agent.starts_with("curl/"))
    );
}

#[test]
fn the_clients_of_others_pull_without_us() {
    let lab = Lab::new("clients");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let (address, reference) = (registry.address(), model.reference(registry.address()));
    let containerd = Containerd::start(&lab, "containerd", address, address);
    run(&mut containerd.fetch(&reference));
    model.assert_blobs(|blob| containerd.blob(blob));
    // Its mirror is no mirror, and so it asks the registry.
    let copied = lab.path("skopeo");
    run(&mut skopeo(&lab, address, address, &reference, &copied));
    model.assert_blobs(|blob| copied.join(blob.hex()));
}

#[test]
fn the_large_model_is_large() {
    let lab = Lab::new("large-model");
    let model = Model::large(&lab);
    assert!(model.size() > 512 << 20 && model.largest().size > 256 << 20);
    assert!(model.blobs().len() > 120, "many small files");
    let deepest = model
        .blobs()
        .iter()
        .filter_map(|blob| Some(blob.path.as_ref()?.matches('/').count()))
        .max();
    assert!(deepest >= Some(2), "in sub-directories");
}
