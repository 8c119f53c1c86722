//! What the kernel says when interfaces, addresses or routes change (rtnetlink(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The most messages that are read at a time: while others change things without end, there is time for
/// something else.
const MOST: usize = 4_096;

/// Messages of the kernel, in the network namespace of the thread that made it. They may be about anything,
/// and some may be lost, so nothing is taken from them but that it is time to ask how things are now.
#[derive(Debug)]
pub struct News(OwnedFd);

impl News {
    /// About every interface.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub(crate) fn of_links() -> io::Result<Self> {
        Self::of(libc::RTMGRP_LINK)
    }

    /// About every interface, its addresses, and every route.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn of_routes() -> io::Result<Self> {
        let addresses = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let routes = libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
        Self::of(libc::RTMGRP_LINK | addresses | routes)
    }

    fn of(groups: i32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let groups = u32::try_from(groups).map_err(io::Error::other)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Reads what there is; returns whether there was anything, or anything was lost.
    pub fn drain(&self) -> bool {
        let mut is_news = false;
        for _ in 0..MOST {
            match recv(&self.0, &mut [0_u8; 1], RecvFlags::DONTWAIT) {
                // The kernel had no room for some.
                Ok(_) | Err(Errno::NOBUFS) => is_news = true,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        is_news
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_can_be_had() {
        // Others may change things meanwhile.
        for news in [News::of_links(), News::of_routes()] {
            let _ = news.unwrap().drain();
        }
    }
}
