//! Egress policy: which addresses requests to targets of users may go to.
//!
//! Public ones always; those of private networks, of this machine and of its links only where an operator lists them, so
//! that nobody who chooses a name reaches what stands behind a firewall.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de::Error as _};

/// The addresses that are allowed besides public ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Networks.
    pub allow: Vec<Network>,
}

/// A network: an address, and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Egress {
    /// With the addresses of this machine.
    pub fn with_loopback(mut self) -> Self {
        let v4 = Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST), bits: 8 };
        let v6 = Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 };
        self.allow.extend([v4, v6]);
        self
    }

    /// Whether a request may go to `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in the clothes of an IPv6 one is judged as what it is.
        let address = address.to_canonical();
        is_public(address) || self.allow.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let has = |own: u128, other: u128, width: u8| {
            let shift = u32::from(width - self.bits);
            own.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => has(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => has(own.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("expected a network such as 10.2.0.0/16 or fd00::/8, found {text}");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        // Addresses are canonical where they are compared.
        match bits <= width && address.to_canonical() == address {
            true => Ok(Self { address, bits }),
            false => Err(invalid()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Networks of IPv4 that are not of the public Internet. Source: IANA IPv4 Special-Purpose Address Registry.
const SPECIAL_V4: [(Ipv4Addr, u8); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // The platform of Azure, which tells each machine what is its own.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, and all that is reserved.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// The global unicast addresses of IPv6.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Networks in it that are not of the public Internet, or lead to addresses of IPv4. Source: IANA IPv6 Special-Purpose
/// Address Registry.
const SPECIAL_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public(address: IpAddr) -> bool {
    let network = |address: IpAddr, bits: u8| Network { address, bits };
    match address {
        IpAddr::V4(_) => !SPECIAL_V4.iter().any(|(of, bits)| network((*of).into(), *bits).contains(address)),
        IpAddr::V6(_) => {
            let is_global = network(GLOBAL_V6.0.into(), GLOBAL_V6.1).contains(address);
            is_global && !SPECIAL_V6.iter().any(|(of, bits)| network((*of).into(), *bits).contains(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allowed: &[&str], address: &str) -> bool {
        let allow = allowed.iter().map(|network| network.parse().unwrap()).collect();
        Egress { allow }.allows(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in ["1.1.1.1", "172.15.255.255", "172.32.0.0", "8.8.8.8", "223.255.255.255", "2606:4700::1111"] {
            assert!(allows(&[], address), "{address}");
        }
    }

    #[test]
    fn private_special_and_mapped_addresses_are_not() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
        ] {
            assert!(!allows(&[], address), "{address}");
        }
    }

    #[test]
    fn listed_networks_are_allowed_in_every_spelling() {
        assert!(allows(&["10.2.0.0/16"], "10.2.255.1") && allows(&["10.2.0.0/16"], "::ffff:10.2.0.1"));
        assert!(!allows(&["10.2.0.0/16"], "10.3.0.1"));
        assert!(allows(&["fd00::/8"], "fd12::1") && !allows(&["fd00::/8"], "fc00::1"));
        assert!(allows(&["127.0.0.1"], "127.0.0.1") && !allows(&["127.0.0.1"], "127.0.0.2"));
        assert!(allows(&["0.0.0.0/0"], "127.0.0.1") && !allows(&["0.0.0.0/0"], "::1"));
        let loopback = Egress::default().with_loopback();
        assert!(loopback.allows(IpAddr::from([127, 1, 2, 3])) && loopback.allows(Ipv6Addr::LOCALHOST.into()));
        assert!(!loopback.allows(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.2", "10.0.0.0/33", "::/129", "10.0.0.0/x", "::ffff:10.0.0.0/104", "example.com"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
