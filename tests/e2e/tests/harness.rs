//! The tools of these tests do what they say.

use e2e::clients::curl;
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
