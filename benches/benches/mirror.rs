//! A node's mirror beside nginx's sendfile: the same file from the page cache, the same client, in turns.
//!
//! `cargo bench -p benches --bench mirror`. Each server is a process of its own with one thread, and shares this
//! machine's cores with the client, which reads bodies into one buffer and forgets them. The processor time is the
//! server's alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use benches::client::Client;
use benches::cost::{Cost, Stopwatch};
use benches::lab::{self, Lab};
use benches::nginx::Nginx;
use benches::{GIB, Outcome};
use wire::control::Role;

const SIZE: u64 = 1 << 30;
const ROUNDS: usize = 2;
const CONNECTIONS: [u64; 2] = [1, 8];
/// How often each connection gets its share of the file in one run: 4 GiB, one to two seconds.
const TIMES: u64 = 4;
/// How this program calls itself to serve.
const SERVE: &str = "--serve-a-mirror";

fn main() -> Outcome<()> {
    if std::env::args().any(|argument| argument == SERVE) {
        return serve();
    }
    let (mirror, blob) = Mirror::start()?;
    let dir = tempfile::tempdir()?;
    let folder = blob.parent().ok_or("the blob is in a folder")?;
    let nginx = Nginx::start(dir.path(), folder)?;
    let name = blob
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or("the blob has a name")?;
    let name = format!("/{name}");

    println!(
        "a blob of {:.0} GiB that is here, {:.0} GiB per run",
        SIZE as f64 / GIB,
        (SIZE * TIMES) as f64 / GIB
    );
    println!("                        packswarm             nginx, sendfile");
    println!("connections  run     GiB/s  CPU-s/GiB      GiB/s  CPU-s/GiB   ratio");
    for connections in CONNECTIONS {
        let mut runs = Vec::new();
        for round in 1..=ROUNDS {
            runs.push([
                run(mirror.process.id(), mirror.address, &mirror.path, connections)?,
                run(nginx.process(), nginx.address(), &name, connections)?,
            ]);
            print_row(connections, &round.to_string(), &runs[round - 1..]);
        }
        print_row(connections, "mean", &runs);
    }
    Ok(())
}

fn print_row(connections: u64, run: &str, runs: &[[Cost; 2]]) {
    let [ours, theirs] = [0, 1].map(|which| Cost::mean(&runs.iter().map(|run| run[which]).collect::<Vec<_>>()));
    println!(
        "{connections:<12} {run:<6} {:>6.2}  {:>9.3}     {:>6.2}  {:>9.3}  {:>6.2}",
        ours.gib_per_s,
        ours.cpu_s_per_gib,
        theirs.gib_per_s,
        theirs.cpu_s_per_gib,
        ours.gib_per_s / theirs.gib_per_s
    );
}

/// Reads the file some times over, in as many parts at once as there are connections.
fn run(process: u32, server: SocketAddr, path: &str, connections: u64) -> Outcome<Cost> {
    let mut clients = Vec::new();
    for number in 0..connections {
        let share = SIZE / connections;
        clients.push((Client::connect(server)?, number * share..(number + 1) * share));
    }
    let watch = Stopwatch::of_process(process)?;
    std::thread::scope(|scope| {
        let reading = clients.into_iter().map(|(mut client, part)| {
            scope.spawn(move || {
                for _ in 0..TIMES {
                    client.get(path, Some(part.clone()))?;
                }
                Outcome::Ok(())
            })
        });
        for reading in reading.collect::<Vec<_>>() {
            reading.join().map_err(|_| "a client panicked")??;
        }
        Outcome::Ok(())
    })?;
    watch.stop(SIZE * TIMES)
}

/// A node in a process of its own, which ends with this one.
struct Mirror {
    process: Child,
    address: SocketAddr,
    path: String,
}

impl Mirror {
    /// Starts it; it says where the mirror is and under which path it has the blob, and which file that is.
    fn start() -> Outcome<(Self, PathBuf)> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("it has an output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or("the mirror did not start");
        let (address, path, file) = (word()?.parse()?, word()?.to_owned(), word()?.into());
        Ok((Self { process, address, path }, file))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // The end of its input tells it to clean up and end.
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// The node: a seed, which needs no scheduler to fill its store.
fn serve() -> Outcome<()> {
    let lab = Lab::start(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let artifact = lab::random_files(1, &[SIZE]);
    lab.publish("v1", &artifact);
    let blob = artifact.files()[0].content.digest();
    let node = lab.node(Role::Seed, &transport::Config::default())?;
    let path = lab.blob(&blob);
    Client::connect(node.mirror())?.get(&path, None)?;
    println!("{} {path} {}", node.mirror(), node.file_of(&blob).display());
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    node.stop();
    Ok(())
}
