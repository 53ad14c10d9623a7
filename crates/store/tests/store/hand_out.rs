//! Files of the user's own.

use std::os::unix::fs::MetadataExt as _;

use store::StoreError;

use crate::sample::{Sample, open};

#[test]
fn copies_are_the_users_own_and_links_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let sample = Sample::new(1, (2 << 20) + 3);
    let file = sample.write(&store, 1..sample.count());
    let (copy, link) = (dir.path().join("copy"), dir.path().join("link"));
    assert!(matches!(file.copy_to(&copy), Err(StoreError::Incomplete { .. })));
    assert!(matches!(file.link_to(&link), Err(StoreError::Incomplete { .. })));
    file.write(sample.proven(0)).unwrap();
    file.copy_to(&copy).unwrap();
    file.link_to(&link).unwrap();
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    let own = inode(&file.path().unwrap());
    assert_ne!(inode(&copy), own);
    assert_eq!(inode(&link), own);
    for path in [&copy, &link] {
        assert_eq!(std::fs::read(path).unwrap(), sample.bytes);
        assert!(
            file.copy_to(path).is_err() && file.link_to(path).is_err(),
            "nothing is overwritten"
        );
        assert_eq!(std::fs::read(path).unwrap(), sample.bytes);
    }
    std::fs::write(&copy, "changed").unwrap();
    assert_eq!(sample.check(&file).len() as u32, sample.count());
}

#[test]
fn a_copy_to_another_filesystem_is_whole_too() {
    let dir = tempfile::tempdir().unwrap();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let store = open(dir.path());
    let sample = Sample::new(2, (2 << 20) + 3);
    let copy = elsewhere.path().join("copy");
    sample.complete(&store).copy_to(&copy).unwrap();
    assert_eq!(std::fs::read(copy).unwrap(), sample.bytes);
}
