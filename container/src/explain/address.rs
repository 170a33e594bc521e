//! `struct sockaddr`: whom a socket is bound or connected to.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest there is: that of a local socket, with its path of 108 bytes.
pub const LONGEST: usize = 110;

/// The address in these bytes, after the two of its family; `None` for a family that no set-up uses.
pub fn told(bytes: &[u8]) -> Option<String> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let port = || rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    Some(match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_UNIX => {
            let end = rest
                .iter()
                .skip(1)
                .position(|&byte| byte == 0)
                .map_or(rest.len(), |end| end + 1);
            let path = String::from_utf8_lossy(&rest[..end]);
            // A name that begins with NUL is none of a file.
            format!("{:?}", path.replacen('\0', "@", 1))
        }
        libc::AF_INET => {
            let [a, b, c, d] = *rest.get(2..6)?.first_chunk::<4>()?;
            format!("{}:{}", Ipv4Addr::new(a, b, c, d), port()?)
        }
        libc::AF_INET6 => {
            let address = *rest.get(6..22)?.first_chunk::<16>()?;
            format!("[{}]:{}", Ipv6Addr::from(address), port()?)
        }
        libc::AF_NETLINK => "the kernel".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_as_people_write_them() {
        let of = |family: i32, rest: &[u8]| told(&[&(family as u16).to_ne_bytes(), rest].concat());
        assert_eq!(
            of(libc::AF_INET, &[0x1f, 0x90, 10, 88, 0, 1]).unwrap(),
            "10.88.0.1:8080"
        );
        let mut six = vec![0, 80, 0, 0, 0, 0];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(of(libc::AF_INET6, &six).unwrap(), "[::1]:80");
        assert_eq!(of(libc::AF_UNIX, b"/run/socket\0\0").unwrap(), "\"/run/socket\"");
        assert_eq!(of(libc::AF_UNIX, b"\0hidden").unwrap(), "\"@hidden\"");
        assert_eq!(of(libc::AF_INET, &[0]), None);
    }
}
