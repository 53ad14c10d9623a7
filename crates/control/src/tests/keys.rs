use std::io::{Read, Write};
use std::sync::Mutex;

use super::*;

const WORDS: &str = "has another cluster key or speaks another protocol: \
                     check that --cluster-key names the same file on both";

/// What is logged on this thread, which is the only one of a `tokio::test`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines_with(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap())
            .lines()
            .filter(|line| line.contains(words))
            .count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn start_with(config: Config, keys: &[&str]) -> Node {
    Node::start_as(config, Arc::new(NodeKey::generate()), keys)
        .await
        .unwrap()
}

#[tokio::test]
async fn another_cluster_key_is_refused_and_both_sides_say_why() {
    let log = Log::default();
    let _guard = log.capture();
    let server = start_with(config(), &[KEY_A]).await;
    let address = server.address();
    let _server = server.serve();
    let stranger = start_with(config(), &[KEY_B]).await;
    for _ in 0..3 {
        let error = stranger
            .control
            .ask(To::Address(address.clone()), lookup())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("the node at {address} {WORDS}")), "{error}");
    }
    let heard = format!("the node at 127.0.0.1 {WORDS}");
    eventually("the listener says why", || async {
        (log.lines_with(&heard) > 0).then_some(())
    })
    .await;
    assert_eq!(log.lines_with(&heard), 1, "once is enough");
}

#[tokio::test]
async fn a_node_says_why_its_scheduler_refuses_it() {
    let log = Log::default();
    let _guard = log.capture();
    let scheduler = start_with(config(), &[KEY_A]).await;
    let node = start_with(config_with(&[&scheduler]), &[KEY_B]).await;
    let said = format!("the node at {} {WORDS}", scheduler.address());
    eventually("the dialler says why", || async {
        (log.lines_with(&said) > 0).then_some(())
    })
    .await;
    assert_eq!(*node.control.schedulers().borrow(), Schedulers::default());
}

#[tokio::test]
async fn keys_rotate_in_three_steps_without_a_stop() {
    let steps: [&[&str]; 4] = [&[KEY_A], &[KEY_A, KEY_B], &[KEY_B, KEY_A], &[KEY_B]];
    for window in steps.windows(2) {
        for (listens, dials) in [(window[0], window[1]), (window[1], window[0])] {
            let server = start_with(config(), listens).await;
            let client = start_with(config(), dials).await;
            let to = To::Address(server.address());
            let _server = server.serve();
            assert_eq!(
                client.control.ask(to, lookup()).await,
                Ok(Response::Taken),
                "{listens:?} {dials:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_other_protocols_are_cut_off_and_harm_nobody() {
    let server = Node::start(Config {
        handshake_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let address = server.control.local_addr();
    let _server = server.serve();
    let hostile: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[0; 4096], &[0xff; 64]];
    for bytes in hostile {
        let cut_off = tokio::task::spawn_blocking(move || {
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.write_all(bytes).unwrap();
            let mut heard = Vec::new();
            match socket.read_to_end(&mut heard) {
                Ok(_) => heard.len() <= 40,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        });
        assert!(cut_off.await.unwrap(), "nonce and greeting at most, then the end");
    }
    let client = Node::start(config()).await;
    assert_eq!(
        client.control.ask(To::Address(address.to_string()), lookup()).await,
        Ok(Response::Taken)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_is_cut_off_and_keeps_nobody_out() {
    let server = Node::start(Config {
        handshake_timeout: Duration::from_millis(500),
        ..config()
    })
    .await;
    let address = server.control.local_addr();
    let _server = server.serve();
    let crowd = (0..200).map(|_| std::net::TcpStream::connect(address).unwrap());
    let crowd: Vec<_> = crowd.collect();
    let client = Node::start(config()).await;
    assert_eq!(
        client.control.ask(To::Address(address.to_string()), lookup()).await,
        Ok(Response::Taken)
    );
    let cut_off = tokio::task::spawn_blocking(move || {
        crowd.into_iter().all(|mut socket| {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut heard = Vec::new();
            match socket.read_to_end(&mut heard) {
                Ok(_) => heard.len() <= 40,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        })
    });
    assert!(cut_off.await.unwrap());
}
