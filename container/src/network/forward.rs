//! A published port: a process that listens on the host and connects inside.
//!
//! A socket belongs to the network namespace it was made in, not to the one its process is in. So the process opens its
//! listening sockets on the host, then moves into the container's network namespace for good: what it accepts comes
//! from the host, what it connects goes to the container, and nothing has to be routed. It works with `--network
//! bridge` and `none` alike, and without root.
//!
//! One thread waits for everything at once (epoll(7)). It ends with the container's supervisor, whose child it is.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, sockopt};
use nix::unistd::{ForkResult, Pid, fork, getppid};
use thiserror::Error;

use super::namespace::{self, NetworkNamespace};
use super::ports::{Port, Transport};
use crate::errno::why;
use crate::{privileges, signals};

/// Bytes under way in one direction of a connection.
const BUFFER: usize = 64 << 10;

/// The largest datagram there is.
const DATAGRAM: usize = 65_535;

/// How long a client of a datagram port is remembered after its last word: what Linux' connection tracking allows a
/// UDP stream with an answer (nf_conntrack_udp_timeout_stream).
const CLIENT_IDLE: Duration = Duration::from_secs(120);

/// Waiting for connections of which nobody accepted one yet.
const BACKLOG: i32 = 128;

/// The sockets of a container's published ports, open on the host.
pub struct Listeners {
    sockets: Vec<(Listener, Port)>,
}

enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Listeners {
    /// Opens them, in the caller's network namespace. Done before the container starts, so that a port in use stops it.
    pub fn open(ports: &[Port]) -> Result<Listeners, Error> {
        let mut sockets = Vec::new();
        for port in ports {
            for address in port.listen_on() {
                let opened = match port.transport {
                    Transport::Tcp => listen(address).map(Listener::Tcp),
                    Transport::Udp => bind(address, SockType::Datagram).map(|fd| Listener::Udp(fd.into())),
                };
                match opened {
                    Ok(listener) => sockets.push((listener, port.clone())),
                    // A host without IPv6 has half as many addresses to listen on.
                    Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if port.ip.is_none() && address.is_ipv6() => {}
                    Err(errno) => return Err(Error::Listen { address, errno }),
                }
            }
        }
        Ok(Listeners { sockets })
    }

    /// Whether there is anything to forward.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Starts the process that forwards to `targets`, tried in order, in `namespace`. The caller has one thread.
    pub fn forward(&self, namespace: &NetworkNamespace, targets: &[IpAddr]) -> Result<Pid, Error> {
        let parent = Pid::this();
        // SAFETY: the supervisor has one thread, so that its copy may do whatever it may.
        match unsafe { fork() }.map_err(Error::Fork)? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => {
                let _ = self.serve(namespace, targets, parent);
                // SAFETY: ends this process at once. The supervisor's exit handlers are not ours to run.
                unsafe { libc::_exit(1) }
            }
        }
    }

    /// The process's life. Returns when something failed that it cannot go on after.
    fn serve(&self, namespace: &NetworkNamespace, targets: &[IpAddr], parent: Pid) -> Result<(), Error> {
        namespace.enter()?;
        keep_only(self.sockets.iter().map(|(listener, _)| listener.as_raw_fd()));
        // Its supervisor blocks every signal; a forwarder is to end at the first.
        let none = nix::sys::signal::SigSet::empty();
        let _ = signals::restore_for_program(&none);
        // A client that goes away is an error to handle, no reason to die.
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { nix::sys::signal::signal(nix::sys::signal::SIGPIPE, nix::sys::signal::SigHandler::SigIgn) };
        let _ = privileges::die_with_parent();
        if getppid() != parent {
            return Ok(());
        }
        Forwarder::new(&self.sockets, targets)?.run()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Listener::Tcp(socket) => socket.as_raw_fd(),
            Listener::Udp(socket) => socket.as_raw_fd(),
        }
    }
}

/// A listening or datagram socket at `address`, for this family alone: the other has a socket of its own.
fn bind(address: SocketAddr, kind: SockType) -> Result<std::os::fd::OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix::sys::socket::socket(family, kind, flags, None)?;
    if kind == SockType::Stream {
        // Connections of the container before this one may linger; they do not own the port.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    let address = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> Result<TcpListener, Errno> {
    let socket = bind(address, SockType::Stream)?;
    let backlog = nix::sys::socket::Backlog::new(BACKLOG)?;
    nix::sys::socket::listen(&socket, backlog)?;
    Ok(socket.into())
}

/// Closes every descriptor but those in `kept`: the container's streams must end when the container does.
fn keep_only(kept: impl Iterator<Item = RawFd>) {
    let mut kept: Vec<u32> = kept.map(|fd| fd as u32).collect();
    kept.sort_unstable();
    let mut from = 0;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: takes numbers only. This process uses no descriptor but those it keeps and those it opens later.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    waiting: Vec<u8>,
    ended: bool,
    passed_on: bool,
}

/// A connection and its counterpart.
struct Pair {
    outer: TcpStream,
    inner: TcpStream,
    inwards: Pipe,
    outwards: Pipe,
}

/// A client of a datagram port.
struct Client {
    listener: usize,
    address: SocketAddr,
    socket: UdpSocket,
    last_word: Instant,
}

struct Forwarder<'a> {
    epoll: Epoll,
    listeners: &'a [(Listener, Port)],
    targets: &'a [IpAddr],
    /// By the descriptor of each of its two ends.
    pairs: HashMap<RawFd, std::rc::Rc<std::cell::RefCell<Pair>>>,
    clients: HashMap<RawFd, Client>,
}

impl<'a> Forwarder<'a> {
    fn new(listeners: &'a [(Listener, Port)], targets: &'a [IpAddr]) -> Result<Forwarder<'a>, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::Wait)?;
        let forwarder = Forwarder {
            epoll,
            listeners,
            targets,
            pairs: HashMap::new(),
            clients: HashMap::new(),
        };
        for (listener, _) in listeners {
            match listener {
                Listener::Tcp(socket) => forwarder.watch(socket, EpollFlags::EPOLLIN)?,
                Listener::Udp(socket) => forwarder.watch(socket, EpollFlags::EPOLLIN)?,
            }
        }
        Ok(forwarder)
    }

    fn watch(&self, socket: &(impl AsFd + AsRawFd), flags: EpollFlags) -> Result<(), Error> {
        let event = EpollEvent::new(flags, socket.as_raw_fd() as u64);
        self.epoll.add(socket, event).map_err(Error::Wait)
    }

    fn run(mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = match self.clients.is_empty() {
                true => EpollTimeout::NONE,
                false => EpollTimeout::from(10_000u16),
            };
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::Wait(errno)),
            };
            for event in &events[..count] {
                let fd = event.data() as RawFd;
                if let Some(index) = self.listeners.iter().position(|(one, _)| one.as_raw_fd() == fd) {
                    match &self.listeners[index] {
                        (Listener::Tcp(listener), port) => self.accept(listener, port),
                        (Listener::Udp(socket), port) => self.take_datagrams(index, socket, port),
                    }
                } else if self.clients.contains_key(&fd) {
                    self.answer_client(fd);
                } else {
                    self.pump(fd);
                }
            }
            self.clients
                .retain(|_, client| client.last_word.elapsed() < CLIENT_IDLE);
        }
    }

    fn accept(&mut self, listener: &TcpListener, port: &Port) {
        while let Ok((outer, _)) = listener.accept() {
            // Nobody listens inside: closing what was accepted tells the client.
            let inner = self.targets.iter().find_map(|&ip| {
                let target = SocketAddr::new(ip, port.container);
                // The other end is in this machine's memory: it answers at once, one way or the other.
                TcpStream::connect_timeout(&target, Duration::from_secs(2)).ok()
            });
            let Some(inner) = inner else { continue };
            let ready = outer.set_nonblocking(true).and(inner.set_nonblocking(true));
            let _ = outer.set_nodelay(true).and(inner.set_nodelay(true));
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            if ready.is_err() || self.watch(&outer, both).is_err() || self.watch(&inner, both).is_err() {
                continue;
            }
            let (one, other) = (outer.as_raw_fd(), inner.as_raw_fd());
            let pair = Pair {
                outer,
                inner,
                inwards: Pipe::default(),
                outwards: Pipe::default(),
            };
            let pair = std::rc::Rc::new(std::cell::RefCell::new(pair));
            self.pairs.insert(one, pair.clone());
            self.pairs.insert(other, pair);
        }
    }

    /// Moves what can be moved, both ways; forgets the connection when both directions have ended.
    fn pump(&mut self, fd: RawFd) {
        let Some(pair) = self.pairs.get(&fd).cloned() else {
            return;
        };
        let mut pair = pair.borrow_mut();
        let Pair {
            outer,
            inner,
            inwards,
            outwards,
        } = &mut *pair;
        let alive = inwards.flow(outer, inner).and(outwards.flow(inner, outer));
        if alive.is_err() || (inwards.passed_on && outwards.passed_on) {
            for fd in [pair.outer.as_raw_fd(), pair.inner.as_raw_fd()] {
                self.pairs.remove(&fd);
            }
        }
    }

    fn take_datagrams(&mut self, index: usize, socket: &UdpSocket, port: &Port) {
        let mut buffer = [0; DATAGRAM];
        while let Ok((length, address)) = socket.recv_from(&mut buffer) {
            let known = |client: &&mut Client| client.listener == index && client.address == address;
            if let Some(client) = self.clients.values_mut().find(known) {
                client.last_word = Instant::now();
                let _ = client.socket.send(&buffer[..length]);
                continue;
            }
            let inner = self.targets.iter().find_map(|&ip| {
                let any = match ip {
                    IpAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
                    IpAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
                };
                let inner = UdpSocket::bind(any).ok()?;
                inner.connect(SocketAddr::new(ip, port.container)).ok()?;
                inner.set_nonblocking(true).ok()?;
                Some(inner)
            });
            let Some(inner) = inner else { continue };
            // Datagrams may be lost; one that nobody inside takes is.
            let _ = inner.send(&buffer[..length]);
            if self.watch(&inner, EpollFlags::EPOLLIN).is_ok() {
                let client = Client {
                    listener: index,
                    address,
                    socket: inner,
                    last_word: Instant::now(),
                };
                self.clients.insert(client.socket.as_raw_fd(), client);
            }
        }
    }

    fn answer_client(&mut self, fd: RawFd) {
        let mut buffer = [0; DATAGRAM];
        let Some(client) = self.clients.get_mut(&fd) else {
            return;
        };
        let Some((Listener::Udp(outer), _)) = self.listeners.get(client.listener) else {
            return;
        };
        loop {
            match client.socket.recv(&mut buffer) {
                Ok(length) => {
                    client.last_word = Instant::now();
                    let _ = outer.send_to(&buffer[..length], client.address);
                }
                // ECONNREFUSED: nobody listens inside (any more). The next datagram tries again.
                Err(_) => return,
            }
        }
    }
}

impl Pipe {
    /// Reads and writes until one of the two would wait.
    fn flow(&mut self, from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
        let mut chunk = [0; BUFFER];
        loop {
            while !self.waiting.is_empty() {
                match to.write(&self.waiting) {
                    Ok(written) => drop(self.waiting.drain(..written)),
                    // The other side is slow: stop reading for it until it takes more.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.ended {
                if !self.passed_on {
                    self.passed_on = true;
                    // It may have gone altogether; then there is no direction left to end.
                    let _ = to.shutdown(Shutdown::Write);
                }
                return Ok(());
            }
            match from.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(length) => self.waiting.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Why a port is not published.
#[derive(Debug, Error)]
pub enum Error {
    /// The host's side.
    #[error("cannot listen on {address}: {}.{}", why(errno), cure(*errno))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No process.
    #[error("cannot start the process that forwards ports: {}", why(.0))]
    Fork(Errno),
    /// The container's side.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// epoll.
    #[error("cannot wait for connections: {}", why(.0))]
    Wait(Errno),
}

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::EADDRINUSE => {
            " Another program, or another container's -p, has this port: choose another one (ss -lntup shows who)"
        }
        Errno::EACCES => " Ports below net.ipv4.ip_unprivileged_port_start (1024) are root's: choose a higher one",
        Errno::EADDRNOTAVAIL => " The host has no such address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Port {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_in_use_is_named_with_its_cure() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let Err(error) = Listeners::open(&[port(&format!("127.0.0.1:{number}:80"))]) else {
            panic!("opened twice");
        };
        assert!(error.to_string().contains("EADDRINUSE"), "{error}");
        assert!(error.to_string().contains("choose another one"), "{error}");
    }

    #[test]
    fn a_direction_ends_when_its_source_does_and_all_is_delivered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            (near, far)
        };
        let (mut source, mut from) = connect();
        let (mut to, mut sink) = connect();
        from.set_nonblocking(true).unwrap();
        to.set_nonblocking(true).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || source.write_all(&sent).unwrap());
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            sink.read_to_end(&mut got).unwrap();
            got
        });
        let mut pipe = Pipe::default();
        while !pipe.passed_on {
            pipe.flow(&mut from, &mut to).unwrap();
            std::thread::yield_now();
        }
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected);
    }
}
