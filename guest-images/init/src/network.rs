//! Network: what `lab.ip=ADDRESS/PREFIX[,GATEWAY]` on the kernel command line asks for, by the ioctls of netdevice(7).

use std::io;
use std::mem::zeroed;
use std::net::Ipv4Addr;

/// The first network card, as the kernel names it without anybody to rename it.
const CARD: &str = "eth0";
const LOOPBACK: &str = "lo";

/// Gives the first card this address and the machine this gateway.
pub fn configure(option: &str) -> Result<(), String> {
    let wrong = || format!("lab.ip={option}: expected ADDRESS/PREFIX[,GATEWAY], such as 10.0.0.2/24,10.0.0.1");
    let (card, gateway) = match option.split_once(',') {
        Some((card, gateway)) => (card, Some(gateway.parse::<Ipv4Addr>().map_err(|_| wrong())?)),
        None => (option, None),
    };
    let (address, prefix) = card.split_once('/').ok_or_else(wrong)?;
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let prefix: u32 = prefix.parse().ok().filter(|&prefix| prefix <= 32).ok_or_else(wrong)?;
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0));

    let socket = Socket::open().map_err(|error| format!("cannot open a socket for the network's set-up: {error}"))?;
    let failed = |what: &'static str| move |error: io::Error| format!("cannot {what} {CARD}: {error}");
    socket
        .bring_up(LOOPBACK)
        .map_err(|error| format!("cannot bring up {LOOPBACK}: {error}"))?;
    socket
        .set(CARD, libc::SIOCSIFADDR, address)
        .map_err(failed("give an address to"))?;
    socket
        .set(CARD, libc::SIOCSIFNETMASK, mask)
        .map_err(failed("set the netmask of"))?;
    socket.bring_up(CARD).map_err(failed("bring up"))?;
    match gateway {
        Some(gateway) => socket
            .route_by(gateway)
            .map_err(|error| format!("cannot route by {gateway}: {error}")),
        None => Ok(()),
    }
}

/// Any socket: the kernel wants one to know which network is meant.
struct Socket(libc::c_int);

impl Socket {
    fn open() -> io::Result<Socket> {
        // SAFETY: takes numbers.
        match unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } {
            socket @ 0.. => Ok(Socket(socket)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sets an address of an interface: which, the request says.
    fn set(&self, name: &str, request: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
        let mut about = about(name);
        about.ifr_ifru.ifru_addr = socket_address(address);
        // SAFETY: these requests read an ifreq with an address.
        check(unsafe { libc::ioctl(self.0, request as _, &raw const about) })
    }

    fn bring_up(&self, name: &str) -> io::Result<()> {
        let mut about = about(name);
        about.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        // SAFETY: this request reads an ifreq with flags.
        check(unsafe { libc::ioctl(self.0, libc::SIOCSIFFLAGS as _, &raw const about) })
    }

    fn route_by(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: all zeros is a valid rtentry: from everywhere, to everywhere.
        let mut route: libc::rtentry = unsafe { zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: this request reads an rtentry, whose device may be null.
        check(unsafe { libc::ioctl(self.0, libc::SIOCADDRT as _, &raw const route) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(self.0) };
    }
}

fn about(name: &str) -> libc::ifreq {
    // SAFETY: all zeros is a valid ifreq.
    let mut about: libc::ifreq = unsafe { zeroed() };
    for (to, from) in about.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    about
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: all zeros is a valid address; sockaddr_in is sockaddr's form for AF_INET, of the same size.
    unsafe {
        let mut socket_address: libc::sockaddr_in = zeroed();
        socket_address.sin_family = libc::AF_INET as libc::sa_family_t;
        socket_address.sin_addr.s_addr = u32::from(address).to_be();
        std::mem::transmute(socket_address)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
