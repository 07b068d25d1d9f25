//! Several servers in one URL: the one that takes writes is found even while another does not respond. Knows no
//! connection and no statement.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// How long a server may stay silent before the next is tried in parallel. A hung server's kernel still accepts a
/// connection, on which no response ever comes: `connect_timeout` does not end that.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// The servers of one URL.
pub(super) struct Hosts {
    each: Vec<Config>,
    /// Index of the server that was connected to last, which is tried first.
    last: AtomicUsize,
}

impl Hosts {
    pub(super) fn of(config: &Config) -> Self {
        Self { each: split(config), last: AtomicUsize::new(0) }
    }

    /// Tries the servers in order, and the next one also while one is silent. Returns the first success; the remaining
    /// tries are dropped.
    pub(super) async fn first<'a, T, E, Fut>(&'a self, open: impl Fn(&'a Config) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let (count, first) = (self.each.len(), self.last.load(Ordering::Relaxed));
        let mut left = (0..count).map(|nth| (first + nth) % count);
        let mut tries = FuturesUnordered::new();
        loop {
            if let Some(host) = left.next() {
                let opened = open(&self.each[host]);
                tries.push(async move { (host, opened.await) });
            }
            let next_after = tokio::time::sleep(NEXT_AFTER);
            tokio::select! {
                Some((host, opened)) = tries.next() => match opened {
                    Ok(opened) => {
                        self.last.store(host, Ordering::Relaxed);
                        return Ok(opened);
                    }
                    Err(error) if tries.is_empty() && left.len() == 0 => return Err(error),
                    Err(_) => {}
                },
                () = next_after, if left.len() > 0 => {}
            }
        }
    }
}

/// One configuration for each server. Where the numbers of hosts, addresses and ports do not match, the driver reports
/// the mistake.
fn split(config: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |length: usize| length == 0 || length == count;
    if count < 2 || !fits(hosts.len()) || !fits(addresses.len()) || !(ports.len() == 1 || fits(ports.len())) {
        return vec![config.clone()];
    }
    let of = |nth: usize| {
        let mut one = without_host(config);
        match hosts.get(nth) {
            Some(Host::Tcp(name)) => drop(one.host(name)),
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(nth) {
            one.hostaddr(*address);
        }
        if let Some(port) = ports.get(nth).or(ports.first()) {
            one.port(*port);
        }
        one
    };
    (0..count).map(of).collect()
}

fn without_host(config: &Config) -> Config {
    let mut one = Config::new();
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "postgres://u:p@a:1,b:2,c:3/d?application_name=shop&connect_timeout=2&tcp_user_timeout=5\
         &keepalives_idle=7&keepalives_interval=8&keepalives_retries=9&target_session_attrs=read-write";

    fn hosts() -> Hosts {
        Hosts::of(&URL.parse().unwrap())
    }

    fn name(config: &Config) -> &str {
        match &config.get_hosts()[0] {
            Host::Tcp(name) => name,
            Host::Unix(_) => "",
        }
    }

    #[test]
    fn each_server_keeps_every_other_setting_of_the_url() {
        for (nth, place) in ["a:1", "b:2", "c:3"].into_iter().enumerate() {
            let alone: Config = URL.replace("a:1,b:2,c:3", place).parse().unwrap();
            assert_eq!(hosts().each[nth], alone);
        }
        let one_port: Config = "postgres://u@a,b:6/d".parse().unwrap();
        assert_eq!(split(&one_port).len(), 2);
        let odd: Config = "host=a,b,c port=1,2 user=u".parse().unwrap();
        assert_eq!(split(&odd), [odd], "the driver names what does not fit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_delays_the_next_by_a_moment_and_is_not_tried_first_again() {
        let hosts = hosts();
        let open = |config| async move {
            match name(config) {
                "a" => std::future::pending().await,
                "b" => Err("a standby"),
                _ => Ok("c"),
            }
        };
        let began = tokio::time::Instant::now();
        assert_eq!(hosts.first(open).await, Ok("c"));
        assert_eq!(began.elapsed(), NEXT_AFTER);
        assert_eq!(hosts.first(open).await, Ok("c"));
        assert_eq!(began.elapsed(), NEXT_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn where_every_server_refuses_that_is_the_result() {
        let hosts = hosts();
        let refused = hosts.first(|config| async move { Err::<(), _>(name(config)) }).await;
        assert_eq!(refused, Err("c"));
    }
}
