//! A layer's bytes on their way from the store to the unpacker: read, decompressed and hashed, each on a thread of its
//! own, in buffers that go round.
//!
//! Two digests are at stake. The blob's name is the digest of what is stored, compressed or not; the layer's name (its
//! diff ID, in the image's configuration) is that of the archive inside. Both are checked on every read. With the
//! processor's SHA instructions one of them costs about as much as writing the bytes out; beside the unpacker, on
//! another processor, it costs no time. Memory is that of `BUFFERS` buffers, however large the layer.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::zstd::Zstd;
use crate::image::digest::Digest;

/// Size of a buffer: large enough that handing it over costs nothing, small enough to stay in the processor's cache.
const BUFFER: usize = 256 << 10;

/// How many go round.
const BUFFERS: usize = 8;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// How many bytes tell.
    pub const TELLING: usize = 10;

    /// What these first bytes of a file show. Media types are claims; the bytes are what there is. The error names a
    /// compression that older tools use for archives, and no image may.
    pub fn of(start: &[u8]) -> io::Result<Compression> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(not_unpacked("xz")),
            // Digits of pi begin every block. The name of a tar archive's first member could begin with BZh.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Err(not_unpacked("bzip2")),
            _ => Ok(Compression::None),
        }
    }
}

fn not_unpacked(tool: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "it is compressed with {tool}, which is not unpacked here, as no layer of an OCI image may be: gzip and zstd are. {tool} -dc FILE | gzip > FILE.gz makes one of the other"
        ),
    )
}

/// What a layer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Digest of the stored bytes.
    pub blob: Digest,
    /// Their number.
    pub blob_size: u64,
    /// Digest of the archive inside.
    pub diff_id: Digest,
    /// Its size.
    pub size: u64,
}

/// The archive inside a layer.
pub struct LayerStream {
    full: Receiver<io::Result<Arc<Vec<u8>>>>,
    pool: Sender<Vec<u8>>,
    current: Option<Arc<Vec<u8>>>,
    position: usize,
    size: u64,
    limit: u64,
    hasher: Option<Hasher>,
    reader: JoinHandle<(Digest, u64)>,
}

/// The thread that finds the diff ID, where it is not the blob's digest.
struct Hasher {
    input: SyncSender<Arc<Vec<u8>>>,
    thread: JoinHandle<Digest>,
}

impl LayerStream {
    /// Starts reading. More than `limit` bytes of archive end it with an error: a few kilobytes of gzip can hold
    /// gigabytes.
    pub fn new(mut stored: impl Read + Send + 'static, limit: u64) -> io::Result<LayerStream> {
        let mut start = Vec::new();
        stored
            .by_ref()
            .take(Compression::TELLING as u64)
            .read_to_end(&mut start)?;
        let compression = Compression::of(&start)?;
        let stored = io::Cursor::new(start).chain(stored);
        let (to_unpacker, full) = sync_channel(BUFFERS);
        let (pool, empty) = channel();
        for _ in 0..BUFFERS {
            // The receiver is in scope.
            let _ = pool.send(Vec::new());
        }
        let reader = std::thread::Builder::new()
            .name("layer reader".into())
            .spawn(move || read_all(Hashing::new(stored), compression, &to_unpacker, &empty))?;
        let hasher = match compression {
            Compression::None => None,
            _ => Some(Hasher::start(pool.clone())?),
        };
        Ok(LayerStream {
            full,
            pool,
            current: None,
            position: 0,
            size: 0,
            limit,
            hasher,
            reader,
        })
    }

    /// Reads what is left, and says what it all was.
    pub fn finish(mut self) -> io::Result<Seen> {
        loop {
            let there = self.fill_buf()?.len();
            if there == 0 {
                break;
            }
            self.consume(there);
        }
        let failed = || io::Error::other("a thread that was reading the layer failed");
        let (blob, blob_size) = self.reader.join().map_err(|_| failed())?;
        let diff_id = match self.hasher.take() {
            None => blob,
            Some(Hasher { input, thread }) => {
                drop(input);
                thread.join().map_err(|_| failed())?
            }
        };
        Ok(Seen {
            blob,
            blob_size,
            diff_id,
            size: self.size,
        })
    }
}

impl BufRead for LayerStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let used_up = self.current.as_ref().is_none_or(|buffer| self.position == buffer.len());
        if used_up {
            recycle(self.current.take(), &self.pool);
            self.position = 0;
            match self.full.recv() {
                Ok(buffer) => {
                    let buffer = buffer?;
                    self.size += buffer.len() as u64;
                    if self.size > self.limit {
                        return Err(io::Error::other(TooLarge(self.limit)));
                    }
                    if let Some(hasher) = &self.hasher {
                        // It only ends early by a panic, which is noticed at the end.
                        let _ = hasher.input.send(buffer.clone());
                    }
                    self.current = Some(buffer);
                }
                // The reader has hung up: that was all.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |buffer| &buffer[self.position..]))
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for LayerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let size = there.len().min(buffer.len());
        buffer[..size].copy_from_slice(&there[..size]);
        self.consume(size);
        Ok(size)
    }
}

/// The archive has more bytes than it may.
#[derive(Debug, thiserror::Error)]
#[error("unpacked it has more than {0} bytes, which is the limit; --max-layer-bytes raises it")]
pub struct TooLarge(pub u64);

impl Hasher {
    fn start(pool: Sender<Vec<u8>>) -> io::Result<Hasher> {
        let (input, buffers) = sync_channel::<Arc<Vec<u8>>>(BUFFERS);
        let thread = std::thread::Builder::new().name("layer hasher".into()).spawn(move || {
            let mut hasher = Sha256::new();
            for buffer in buffers {
                hasher.update(buffer.as_slice());
                recycle(Some(buffer), &pool);
            }
            Digest::from_hasher(hasher)
        })?;
        Ok(Hasher { input, thread })
    }
}

/// Whoever lets go of a buffer last gives it back.
fn recycle(buffer: Option<Arc<Vec<u8>>>, pool: &Sender<Vec<u8>>) {
    if let Some(buffer) = buffer.and_then(Arc::into_inner) {
        // With the reader gone nobody needs it.
        let _ = pool.send(buffer);
    }
}

fn read_all<R: Read>(
    mut stored: Hashing<R>,
    compression: Compression,
    to_unpacker: &SyncSender<io::Result<Arc<Vec<u8>>>>,
    empty: &Receiver<Vec<u8>>,
) -> (Digest, u64) {
    let result = match compression {
        Compression::None => pass_on(&mut stored, to_unpacker, empty),
        Compression::Gzip => {
            let input = io::BufReader::with_capacity(BUFFER, &mut stored);
            pass_on(MultiGzDecoder::new(input), to_unpacker, empty)
        }
        Compression::Zstd => {
            let input = io::BufReader::with_capacity(BUFFER, &mut stored);
            pass_on(Zstd::new(input), to_unpacker, empty)
        }
    };
    // The digest is that of all that is stored, also of what may lie behind the compressed stream.
    let result = result.and_then(|()| io::copy(&mut stored, &mut io::sink()).map(drop));
    if let Err(error) = result {
        // If nobody listens any more, nobody needs to know.
        let _ = to_unpacker.send(Err(error));
    }
    stored.finish()
}

fn pass_on(
    mut archive: impl Read,
    to_unpacker: &SyncSender<io::Result<Arc<Vec<u8>>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    // An error of the channels says that the unpacker has stopped, for a reason it will tell itself.
    while let Ok(mut buffer) = empty.recv() {
        buffer.resize(BUFFER, 0);
        let mut filled = 0;
        while filled < BUFFER {
            match archive.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        if filled == 0 || to_unpacker.send(Ok(Arc::new(buffer))).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Bytes that are hashed as they pass.
pub struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    size: u64,
}

impl<T> Hashing<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Hashing<T> {
        Hashing {
            inner,
            hasher: Sha256::new(),
            size: 0,
        }
    }

    /// Digest and number of the bytes that passed.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_hasher(self.hasher), self.size)
    }

    /// The same, and what they came from or went to.
    pub fn into_parts(self) -> (T, Digest, u64) {
        (self.inner, Digest::from_hasher(self.hasher), self.size)
    }

    /// The digest of what has passed so far.
    pub fn digest(&self) -> Digest {
        Digest::from_hasher(self.hasher.clone())
    }

    /// How many have passed so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..size]);
        self.size += size as u64;
        Ok(size)
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..size]);
        self.size += size as u64;
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
