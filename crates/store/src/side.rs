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
