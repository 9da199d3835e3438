//! Where a request comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering;

use anyhow::Context;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;
use latchkey_filter::networks;

use crate::app::App;

/// The address of a client, as far as it can be believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Reads networks with commas between; an address stands for itself.
///
/// # Errors
///
/// What was expected and what was found.
pub(crate) fn networks(text: &str) -> anyhow::Result<Vec<IpNet>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let network = |name: &str| {
        networks::parse(name).with_context(|| {
            format!(
                "--trusted-proxies: expected networks such as `10.0.0.0/8` with commas between, \
                 found `{name}`"
            )
        })
    };
    names.map(network).collect()
}

/// Notes where each request comes from.
pub(crate) async fn note(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if let Some(&ConnectInfo(peer)) = peer {
        let (peer, headers) = (peer.ip().to_canonical(), request.headers());
        let client = client(peer, headers, &app.trusted_proxies);
        if client == peer && headers.contains_key(FORWARDED_FOR) {
            warn_once(&app, peer);
        }
        request.extensions_mut().insert(ClientAddress(client));
    }
    next.run(request).await
}

/// Says that what a proxy in front tells of clients is not believed: all of them look like one then.
fn warn_once(app: &App, peer: IpAddr) {
    let is_trusted = app.trusted_proxies.iter().any(|network| network.contains(&peer));
    if !is_trusted && !app.has_warned_of_proxy.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            %peer,
            "`X-Forwarded-For` came from an address that is not one of `--trusted-proxies`; if a proxy of \
             yours is there, all its clients count as one until it is named"
        );
    }
}

/// Returns the last address of the way that is not one of a trusted proxy's.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let said: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut client = peer;
    for text in said.into_iter().rev() {
        if !is_trusted(&client) {
            break;
        }
        let Some(before) = read(text.trim()) else {
            break;
        };
        client = before;
    }
    client
}

/// Reads an address, alone, in brackets or with a port, as proxies write it.
fn read(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse::<IpAddr>().ok();
    let address = alone.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

/// Returns the first address of the network of which a client has all addresses: of IPv6, 64 bits.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = networks("10.0.0.0/8, ::1").unwrap();
        let told = |peer: &str, said: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", said.parse().unwrap());
            client(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(told("192.0.2.1", "198.51.100.7"), "192.0.2.1");
        assert_eq!(told("10.1.1.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(told("10.1.1.1", "203.0.113.9, 198.51.100.7, 10.2.2.2"), "198.51.100.7");
        assert_eq!(told("10.1.1.1", "203.0.113.9, nonsense"), "10.1.1.1");
        assert_eq!(told("::1", "10.3.3.3"), "10.3.3.3");
        for (said, client) in [
            ("198.51.100.7:443", "198.51.100.7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[::ffff:198.51.100.7]:443", "198.51.100.7"),
            ("203.0.113.9:1, 198.51.100.7:2,[::ffff:10.2.2.2]:3", "198.51.100.7"),
            ("198.51.100.7:", "10.1.1.1"),
            ("[198.51.100.7", "10.1.1.1"),
            ("2001:db8::7:443:1:2:3:4:5:6", "10.1.1.1"),
        ] {
            assert_eq!(told("10.1.1.1", said), client, "{said}");
        }
        assert_eq!(told("::1", "::ffff:198.51.100.7, ::ffff:10.3.3.3"), "198.51.100.7");
    }

    #[test]
    fn networks_that_cannot_be_read_are_named() {
        assert!(networks("").unwrap().is_empty());
        let error = networks("10.0.0.0/8,nonsense").unwrap_err().to_string();
        assert!(error.contains("--trusted-proxies") && error.contains("`nonsense`"), "{error}");
    }
}
