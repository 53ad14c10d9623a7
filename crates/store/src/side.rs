//! The side file: what is known about a blob beside its bytes.
//!
//! A side file is a log: a magic line, then records, each with its length before and a checksum behind it. A checksum covers
//! the blob's digest as well, so a record of another blob is no record of this one. Reading ends at the first record that
//! does not hold, so a torn write costs what it tore and nothing else; bits lost this way are found again, because pieces on
//! disk prove themselves. `docs/store.md` says what is written when.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use minicbor::{Decode, Encode};
use piece::{Bitfield, Blob, Chain, Digest, Midstate, SignedRun};

use crate::index::Meta;

/// Opens a side file, with the version of its records.
const MAGIC: &[u8] = b"packswarm side 1\n";
/// The longest record is the bitmap of 65,536 pieces, 8 KiB; a run of 64 signed midstates has 2.4 KiB.
const MAX_RECORD: usize = 10 << 10;
/// Bytes of the checksum behind each record, a truncated SHA-256.
const CHECK: usize = 8;
/// No side file is read past this: a log is rewritten long before ([`crate::side_log`]).
const MAX_FILE: u64 = 64 << 20;
/// Midstates in one record of learnt ones: 1.1 KiB.
const LEARNT_AT_ONCE: usize = 32;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Record {
    /// Always the first: which blob this is, and the epoch in which all that follows was known to be true.
    #[n(0)]
    Blob {
        #[n(0)]
        blob: Blob,
        #[n(1)]
        epoch: u64,
    },
    /// Its media type.
    #[n(1)]
    MediaType(#[n(0)] String),
    /// One more place that it can be read from.
    #[n(2)]
    Source(#[n(0)] String),
    /// Whether it is pinned from here on.
    #[n(3)]
    Pinned(#[n(0)] bool),
    /// Midstates that somebody vouches for.
    #[n(4)]
    Run(#[n(0)] SignedRun),
    /// Midstates that were computed here, from this boundary on.
    #[n(5)]
    Learnt {
        #[n(0)]
        first: u32,
        #[n(1)]
        midstates: Vec<Midstate>,
    },
    /// One more piece is here, verified.
    #[n(6)]
    Have(#[n(0)] u32),
    /// All pieces that are here.
    #[n(7)]
    Bits(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

impl Record {
    /// Appends the record as the file has it.
    pub(crate) fn put(&self, digest: &Digest, file: &mut Vec<u8>) {
        let payload = minicbor::to_vec(self).expect("encoding into memory cannot fail");
        debug_assert!(payload.len() <= MAX_RECORD, "no record is longer than MAX_RECORD");
        file.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        file.extend_from_slice(&payload);
        file.extend_from_slice(&check(digest, &payload));
    }
}

/// What a side file says, before anything of it was checked against signatures or bytes.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) blob: Blob,
    pub(crate) epoch: u64,
    pub(crate) meta: Meta,
    pub(crate) bits: Bitfield,
    pub(crate) runs: Vec<SignedRun>,
    pub(crate) learnt: Vec<(u32, Midstate)>,
    /// Bytes of the file up to the first record that does not hold.
    pub(crate) len: u64,
    /// Whether the file ends there.
    pub(crate) intact: bool,
}

impl Side {
    /// Reads the side file of the blob with this digest; `None` if not even its first record holds.
    pub(crate) fn read(path: &Path, digest: &Digest) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut log = Reader {
            from: BufReader::new(file.take(MAX_FILE)),
            digest: *digest,
            len: 0,
        };
        let Some(Record::Blob { blob, epoch }) = log.start()? else {
            return Ok(None);
        };
        if blob.digest != *digest {
            return Ok(None);
        }
        let bits = Bitfield::empty(&blob.geometry());
        let (meta, runs, learnt) = (Meta::default(), Vec::new(), Vec::new());
        let mut side = Self {
            blob,
            epoch,
            meta,
            bits,
            runs,
            learnt,
            len: log.len,
            intact: false,
        };
        while let Next::Record(record) = log.next()? {
            if !side.take(record) {
                return Ok(Some(side));
            }
            side.len = log.len;
        }
        side.intact = file_len(path)? == side.len;
        Ok(Some(side))
    }

    /// The chain, as far as signatures hold; and whether all of it did.
    pub(crate) fn chain(&mut self) -> (Chain, bool) {
        let mut chain = Chain::new(self.blob);
        let runs = std::mem::take(&mut self.runs)
            .into_iter()
            .map(|run| chain.accept(run).is_ok());
        let runs_hold = runs.fold(true, |all, holds| all & holds);
        let learnt = self
            .learnt
            .iter()
            .map(|(boundary, midstate)| chain.learn(*boundary, *midstate).is_ok());
        let learnt_holds = learnt.fold(true, |all, holds| all & holds);
        (chain, runs_hold && learnt_holds)
    }

    /// Takes a record; false if it makes no sense.
    fn take(&mut self, record: Record) -> bool {
        let geometry = self.blob.geometry();
        match record {
            Record::Blob { .. } => return false,
            Record::MediaType(media_type) => return self.meta.set_media_type(&media_type),
            Record::Source(source) => return self.meta.add_source(&source),
            Record::Pinned(pinned) => self.meta.pinned = pinned,
            Record::Run(run) => self.runs.push(run),
            Record::Learnt { first, midstates } => self.learnt.extend((first..).zip(midstates)),
            Record::Have(number) => match geometry.piece(number) {
                Some(piece) => drop(self.bits.set(piece)),
                None => return false,
            },
            Record::Bits(bits) => match Bitfield::from_bytes(&geometry, &bits) {
                Ok(bits) => self.bits = bits,
                Err(_) => return false,
            },
        }
        true
    }
}

/// Everything about a blob as the records of a fresh file. A proven chain needs no vouchers: whoever has it signs it anew.
pub(crate) fn snapshot(epoch: u64, meta: &Meta, chain: &Chain, bits: &Bitfield) -> Vec<u8> {
    let digest = chain.blob().digest;
    let mut file = MAGIC.to_vec();
    let mut put = |record: Record| record.put(&digest, &mut file);
    put(Record::Blob {
        blob: *chain.blob(),
        epoch,
    });
    meta.media_type
        .iter()
        .cloned()
        .for_each(|media_type| put(Record::MediaType(media_type)));
    meta.sources
        .iter()
        .cloned()
        .for_each(|source| put(Record::Source(source)));
    if meta.pinned {
        put(Record::Pinned(true));
    }
    if !bits.is_full() {
        chain.runs().cloned().for_each(|run| put(Record::Run(run)));
    }
    let learnt = |n: u32| {
        (bits.is_full() || chain.voucher(n).is_none())
            .then(|| chain.boundary(n))
            .flatten()
    };
    let last = chain.blob().geometry().count();
    let mut first = 1;
    while first < last {
        let midstates: Vec<_> = (first..last).map_while(learnt).take(LEARNT_AT_ONCE).collect();
        let next = first + midstates.len().max(1) as u32;
        if !midstates.is_empty() {
            put(Record::Learnt { first, midstates });
        }
        first = next;
    }
    if !bits.is_empty() {
        put(Record::Bits(bits.as_bytes().to_vec()));
    }
    file
}

struct Reader<R> {
    from: R,
    digest: Digest,
    /// Bytes read that hold.
    len: u64,
}

enum Next {
    Record(Record),
    /// The end, or what is no record.
    End,
}

impl<R: Read> Reader<R> {
    fn start(&mut self) -> io::Result<Option<Record>> {
        let mut magic = [0; MAGIC.len()];
        if !fill(&mut self.from, &mut magic)? || magic != MAGIC {
            return Ok(None);
        }
        self.len = MAGIC.len() as u64;
        match self.next()? {
            Next::Record(record) => Ok(Some(record)),
            Next::End => Ok(None),
        }
    }

    fn next(&mut self) -> io::Result<Next> {
        let mut len = [0; 2];
        if !fill(&mut self.from, &mut len)? {
            return Ok(Next::End);
        }
        let len = usize::from(u16::from_be_bytes(len));
        let mut record = [0; MAX_RECORD + CHECK];
        if len > MAX_RECORD || !fill(&mut self.from, &mut record[..len + CHECK])? {
            return Ok(Next::End);
        }
        let (payload, sum) = record[..len + CHECK].split_at(len);
        if check(&self.digest, payload) != sum {
            return Ok(Next::End);
        }
        // What has its checksum was written here; what doesn't decode then was written by another version.
        let Ok(record) = minicbor::decode(payload) else {
            return Ok(Next::End);
        };
        self.len += (2 + len + CHECK) as u64;
        Ok(Next::Record(record))
    }
}

fn check(digest: &Digest, payload: &[u8]) -> [u8; CHECK] {
    let mut message = Vec::with_capacity(32 + payload.len());
    message.extend_from_slice(digest.as_bytes());
    message.extend_from_slice(payload);
    let sum = Digest::of(&message);
    *sum.as_bytes().first_chunk().expect("a digest has 32 bytes")
}

/// Fills the buffer; false if the file ends before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn file_len(path: &Path) -> io::Result<u64> {
    std::fs::metadata(path).map(|metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use piece::{MidstateRun, NodeId, Standing};
    use std::fs;

    const BLOB: Blob = Blob {
        digest: Digest::from_bytes([7; 32]),
        size: 5 << 20,
    };

    fn run() -> SignedRun {
        let run = MidstateRun {
            blob: BLOB,
            first: 3,
            midstates: vec![Midstate::START; 4],
            standing: Standing::Closed,
        };
        SignedRun::sign(run, &SigningKey::from_bytes(&[1; 32])).unwrap()
    }

    /// A log with one of everything, and where each record ends.
    fn log() -> (Vec<u8>, Vec<usize>) {
        let bits = [vec![0xf0], vec![0; 2]].concat();
        let mut file = MAGIC.to_vec();
        let mut ends = Vec::new();
        for record in [
            Record::Blob { blob: BLOB, epoch: 9 },
            Record::MediaType("application/x".to_owned()),
            Record::Source("registry/org/model".to_owned()),
            Record::Run(run()),
            Record::Learnt {
                first: 1,
                midstates: vec![Midstate::START; 2],
            },
            Record::Bits(bits),
            Record::Have(19),
            Record::Pinned(true),
        ] {
            record.put(&BLOB.digest, &mut file);
            ends.push(file.len());
        }
        (file, ends)
    }

    fn read(bytes: &[u8]) -> Option<Side> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        Side::read(file.path(), &BLOB.digest).unwrap()
    }

    fn have(side: &Side) -> Vec<u32> {
        BLOB.geometry()
            .pieces()
            .filter(|piece| side.bits.has(*piece))
            .map(|piece| piece.get())
            .collect()
    }

    #[test]
    fn everything_is_read_back() {
        let mut side = read(&log().0).unwrap();
        assert!(side.intact && side.epoch == 9 && side.blob == BLOB && side.meta.pinned);
        assert_eq!(side.meta.media_type.as_deref(), Some("application/x"));
        assert_eq!(side.meta.sources, ["registry/org/model"]);
        assert_eq!(have(&side), [0, 1, 2, 3, 19]);
        let (chain, holds) = side.chain();
        assert!(holds);
        assert_eq!((chain.known_prefix(), chain.voucher(2)), (6, None));
        let signer = SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
        assert_eq!(chain.voucher(6), Some(NodeId::from_bytes(signer)));
    }

    #[test]
    fn a_snapshot_says_the_same() {
        let mut side = read(&log().0).unwrap();
        let (chain, _) = side.chain();
        let mut again = read(&snapshot(10, &side.meta, &chain, &side.bits)).unwrap();
        assert!(again.intact && again.epoch == 10 && again.meta == side.meta && again.bits == side.bits);
        let (same, holds) = again.chain();
        assert!(holds);
        for n in 0..20 {
            assert_eq!(
                (same.boundary(n), same.voucher(n)),
                (chain.boundary(n), chain.voucher(n)),
                "boundary {n}"
            );
        }
        let full = Bitfield::full(&BLOB.geometry());
        let proven = read(&snapshot(10, &side.meta, &chain, &full)).unwrap();
        assert!(proven.runs.is_empty() && proven.learnt.len() == 6 && proven.bits.is_full());
    }

    #[test]
    fn cut_or_flipped_anywhere_only_what_stands_before_counts() {
        let (file, ends) = log();
        for at in 0..file.len() {
            let whole = ends.iter().filter(|end| **end <= at).count();
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            for (how, bytes) in [("cut", &file[..at]), ("flipped", &flipped[..])] {
                let side = read(bytes);
                assert_eq!(side.is_some(), whole > 0, "{how} at {at}");
                let Some(side) = side else { continue };
                assert_eq!(side.len as usize, ends[whole - 1], "{how} at {at}");
                assert_eq!(side.intact, how == "cut" && ends.contains(&at), "{how} at {at}");
                let expected: &[u32] = [&[][..], &[0, 1, 2, 3], &[0, 1, 2, 3, 19]][whole.saturating_sub(5).min(2)];
                assert_eq!(have(&side), expected, "{how} at {at}");
            }
        }
    }

    #[test]
    fn records_of_another_blob_or_out_of_place_end_the_log() {
        let other = Digest::from_bytes([8; 32]);
        let (file, _) = log();
        for record in [
            Record::Blob { blob: BLOB, epoch: 1 },
            Record::Have(20),
            Record::Bits(vec![0xff; 4]),
            Record::Bits(vec![0xff; 3]),
            Record::MediaType("x".repeat(256)),
        ] {
            let mut longer = file.clone();
            record.put(&BLOB.digest, &mut longer);
            let side = read(&longer).unwrap();
            assert_eq!((side.intact, side.len as usize), (false, file.len()), "{record:?}");
        }
        let mut longer = file.clone();
        Record::Have(5).put(&other, &mut longer);
        assert!(!read(&longer).unwrap().intact);
        assert!(Side::read(std::path::Path::new("/nowhere"), &other).unwrap().is_none());
    }

    #[test]
    fn a_forged_run_spoils_the_chain_but_nothing_else() {
        let mut side = read(&log().0).unwrap();
        let mut bytes = minicbor::to_vec(run()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        side.runs = vec![minicbor::decode(&bytes).unwrap()];
        let (chain, holds) = side.chain();
        assert!(!holds && chain.known_prefix() == 2);
    }
}
