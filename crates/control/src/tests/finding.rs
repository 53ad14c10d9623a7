use super::*;

/// The providers of a blob, once there are any.
async fn found(control: &Control, digest: &Digest) -> Vec<piece::NodeId> {
    eventually("a provider is found", || async {
        let found = control.providers(digest, 8).await;
        (!found.is_empty()).then_some(found)
    })
    .await
}

#[tokio::test]
async fn a_provider_is_found_through_a_third_node_when_the_scheduler_is_gone() {
    let scheduler = Node::start(config()).await;
    let holder = Node::start(config_with(&[&scheduler])).await;
    let third = Node::start(config_with(&[&scheduler])).await;
    let (holder_id, third_address) = (holder.id(), third.address());
    let schedulers = vec![scheduler.address()];
    let (holder, third) = (holder.serve(), third.serve());
    holder.provide(&digest(1)).await;
    assert_eq!(found(&third, &digest(1)).await, [holder_id], "through the scheduler");

    scheduler.control.close().await;
    let late = Node::start(Config {
        schedulers,
        bootstrap: vec![third_address],
        ..config()
    })
    .await
    .serve();
    assert_eq!(found(&late, &digest(1)).await, [holder_id]);
    assert_eq!(
        late.ask(To::Node(holder_id), lookup()).await,
        Ok(Response::Taken),
        "it is connected"
    );
    assert_eq!(late.providers(&digest(2), 8).await, [], "nobody holds that");

    holder.unprovide(&digest(1)).await;
    assert_eq!(holder.providers(&digest(1), 8).await, [], "it never finds itself");
    holder.close().await;
    eventually("a node that is gone is not returned", || async {
        late.providers(&digest(1), 8).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_search_ends_with_as_many_as_were_wanted() {
    let first = Node::start(config()).await;
    let bootstrap = vec![first.address()];
    let first = first.serve();
    let mut holders = Vec::new();
    for _ in 0..4 {
        let holder = Node::start(Config {
            bootstrap: bootstrap.clone(),
            ..config()
        })
        .await
        .serve();
        holder.provide(&digest(1)).await;
        holders.push(holder);
    }
    let all = eventually("all four are found", || async {
        let all = first.providers(&digest(1), 8).await;
        (all.len() == 4).then_some(all)
    })
    .await;
    let two = first.providers(&digest(1), 2).await;
    assert_eq!(two.len(), 2);
    assert!(two.iter().all(|node| all.contains(node)));
}

#[tokio::test]
async fn without_kademlia_nobody_is_found() {
    let first = Node::start(config()).await;
    let alone = Node::start(Config {
        kad: false,
        bootstrap: vec![first.address()],
        ..config()
    })
    .await;
    alone.control.provide(&digest(1)).await;
    assert_eq!(alone.control.providers(&digest(1), 8).await, []);
}
