//! Addresses and networks.

use std::{fmt::Write, net::Ipv4Addr, net::Ipv6Addr};

/// Number of the family of IPv4 addresses. Source: `PGSQL_AF_INET` in PostgreSQL's `utils/inet.h`.
const FAMILY_4: u8 = 2;
/// Number of the family of IPv6 addresses.
const FAMILY_6: u8 = 3;

/// The text that PostgreSQL prints of an `inet` or `cidr`, which a cast to text does not give: a host has no length.
///
/// Source: `network_send` in PostgreSQL's `network.c`: family, bits of the network, whether it is a `cidr`, count of
/// bytes, then the bytes.
pub fn text(raw: &[u8]) -> Option<String> {
    let ([family, bits, is_network, _], bytes) = raw.split_first_chunk()?;
    let (mut text, host_bits) = match *family {
        FAMILY_4 => (Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(), 32),
        FAMILY_6 => (ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)), 128),
        _ => return None,
    };
    if *is_network != 0 || *bits != host_bits {
        write!(text, "/{bits}").ok()?;
    }
    Some(text)
}

/// As [`Ipv6Addr`] is displayed, but for addresses that embed one of IPv4 after zeros.
/// Source: `pg_inet_net_ntop` in PostgreSQL's `inet_net_ntop.c`.
fn ipv6(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            let embedded = u32::from(high) << 16 | u32::from(low);
            format!("::{}", Ipv4Addr::from(embedded))
        }
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_no_length_and_networks_have() {
        assert_eq!(text(&[2, 32, 0, 4, 10, 0, 0, 1]).unwrap(), "10.0.0.1");
        assert_eq!(text(&[2, 8, 0, 4, 10, 0, 0, 1]).unwrap(), "10.0.0.1/8");
        assert_eq!(text(&[2, 32, 1, 4, 10, 0, 0, 1]).unwrap(), "10.0.0.1/32");
        let local = [&[3, 128, 0, 16][..], &[0; 15], &[1]].concat();
        assert_eq!(text(&local).unwrap(), "::1");
        let embedded = [&[3, 128, 0, 16][..], &[0; 12], &[1, 2, 3, 4]].concat();
        assert_eq!(text(&embedded).unwrap(), "::1.2.3.4");
    }

    #[test]
    fn what_no_server_sends_is_no_address() {
        for raw in [&[][..], &[2, 32, 0, 4, 1], &[9, 32, 0, 4, 1, 2, 3, 4]] {
            assert_eq!(text(raw), None, "{raw:?}");
        }
    }
}
