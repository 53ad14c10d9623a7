//! Frames in a byte stream.

use wire::FrameBuffer;

use crate::Decoder;

/// Small, so that cases reach it.
const LIMIT: usize = 64;

pub(crate) const DECODER: Decoder = Decoder {
    name: "frames",
    check,
    words: &["\0\0\0\0", "\0\0\0\u{1}", "\0\0\0@", "\0\0\0A"],
    max_len: 4 << 10,
    memory: 64 << 10,
};

/// The first byte says in which steps the rest arrives; however it does, the same frames come out.
fn check(bytes: &[u8]) {
    let Some((step, stream)) = bytes.split_first() else {
        return;
    };
    let [at_once, in_steps] = [stream.len().max(1), usize::from(*step) + 1].map(|step| frames(stream, step));
    assert_eq!(at_once, in_steps, "steps of {step}");
    let (frames, refused) = at_once;
    assert!(frames.iter().all(|frame| frame.len() <= LIMIT));
    let mut rest = stream;
    for frame in &frames {
        let (length, body) = rest.split_first_chunk::<4>().expect("a frame has a length");
        assert_eq!(u32::from_be_bytes(*length) as usize, frame.len());
        let (body, after) = body.split_at(frame.len());
        assert_eq!(body, frame);
        rest = after;
    }
    let next = rest
        .first_chunk::<4>()
        .map(|length| u32::from_be_bytes(*length) as usize);
    assert_eq!(refused, next.is_some_and(|length| length > LIMIT));
}

/// What comes out, and whether the stream was refused in the end.
fn frames(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, bool) {
    let mut buffer = FrameBuffer::new(LIMIT);
    let mut frames = Vec::new();
    for part in stream.chunks(step) {
        buffer.push(part);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}
