//! Page faults of post-copy migrations, in processes of their own.
//!
//! A guest that arrives by post-copy has pages that are still on the other machine. The
//! front-end fetches them on demand: it is told of page faults over a userfaultfd, and whoever
//! touches such a page waits for it. Two things follow.
//!
//! **No worker touches a page before it is there.** It knows by [`Pages`], has missing ones asked
//! for, and leaves what lies in them in the ring meanwhile.
//!
//! **The userfaultfd is not of this process.** The front-end gets it, and may do with it what it
//! likes in the address space that it was made in: have any memory wait for it, and fill pages.
//! So another process, the *pager*, has it: it maps the guest's memory, touches the pages that it is
//! asked for, waits for them, and tells when they are there. It has nothing else that would be
//! worth having. There is one for each migration, since an earlier front-end may have kept its
//! file.
//!
//! Pagers are started by one process that is started with the first port that may need them
//! ([`Pagers`]). Both are the program itself once more, so `main` must call [`serve_if_asked`]
//! before it does anything else.
//!
//! - [`pagers`]: where pagers come from
//! - [`pager`]: one pager, as this process sees it
//! - [`pages`]: which pages are there
//! - `process`: what the processes do
//! - `wire`: what goes between them

pub mod pager;
pub mod pagers;
pub mod pages;
pub(crate) mod process;
#[cfg(test)]
mod tests;
mod wire;

pub use pager::{Pager, PagerLink, Report};
pub use pagers::{ComingPager, Pagers, PagersError};
pub use pages::Pages;
pub use process::serve_if_asked;
