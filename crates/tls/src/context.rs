//! Keys and certificates as OpenSSL has them, and what is spoken.

use std::ffi::{CString, c_long};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::ptr::{NonNull, null_mut};

use crate::library::{
    AUTO_RETRY, Functions, MODES, Ptr, TLS1_2, VERIFY, ctrl, length, no_password, option,
};
use crate::order::{Manner, Order, Trust};

/// The most bytes that are read of a file.
const FILE: usize = 1 << 20;

/// The most certificates that are taken from a file.
const CERTIFICATES: usize = 1_000;

/// What is spoken up to TLS 1.2 where nothing was set.
const CIPHERS: &str = "HIGH:!aNULL:!MD5";

/// `SSL_CTX`.
pub struct Context {
    pub library: &'static Functions,
    pub at: NonNull<std::ffi::c_void>,
    /// Of what it was made.
    made_of: MadeOf,
}

/// What another one would have to be made of to be the same.
#[derive(PartialEq, Eq)]
struct MadeOf {
    trust: Trust,
    has_more: bool,
    manner: Manner,
    /// Device, number, size and times of each file.
    files: Vec<[i128; 5]>,
}

impl MadeOf {
    fn of(order: &Order, files: &[File]) -> Result<Self, String> {
        let stamp = |file: &File| {
            let about = rustix::fs::fstat(file)?;
            let time = |seconds, rest: u64| i128::from(seconds) << 64 | i128::from(rest);
            Ok([
                about.st_dev.into(),
                about.st_ino.into(),
                about.st_size.into(),
                time(about.st_mtime, about.st_mtime_nsec),
                time(about.st_ctime, about.st_ctime_nsec),
            ])
        };
        let files = files.iter().map(stamp).collect::<rustix::io::Result<_>>();
        let files = files.map_err(|error| format!("cannot look at a file: {error}"))?;
        let Order { trust, has_more, manner, .. } = order.clone();
        Ok(Self { trust, has_more, manner, files })
    }
}

impl Context {
    /// The one of `known` that is made of the same, or a new one, which is then the last of them.
    pub fn get<'k>(
        known: &'k mut Vec<Self>,
        library: &'static Functions,
        order: &Order,
        files: &[File],
    ) -> Result<&'k Self, String> {
        /// So many different ones are in use at most: controllers' and the database's, each anew.
        const KNOWN: usize = 4;
        let made_of = MadeOf::of(order, files)?;
        if let Some(at) = known.iter().position(|one| one.made_of == made_of) {
            let same = known.remove(at);
            known.push(same);
        } else {
            let new = Self::new(library, order, files, made_of)?;
            if known.len() >= KNOWN {
                known.remove(0);
            }
            known.push(new);
        }
        known.last().ok_or_else(String::new)
    }

    fn new(
        library: &'static Functions,
        order: &Order,
        files: &[File],
        made_of: MadeOf,
    ) -> Result<Self, String> {
        library.forget_errors();
        // SAFETY: the method is the library's own.
        let at = NonNull::new(unsafe { (library.SSL_CTX_new)((library.TLS_method)()) });
        let at = at.ok_or_else(|| library.reason().unwrap_or_else(|| "no memory".to_owned()))?;
        let context = Self { library, at, made_of };
        context.speak(&order.manner)?;
        let mut files = files.iter();
        let mut next = |what: &str| {
            let file = files.next().ok_or_else(|| format!("no {what} came along"))?;
            read(file).map_err(|error| format!("{what}: {error}"))
        };
        let key = next("private key")?;
        context.present(&next("certificate")?)?;
        context.use_key(&key)?;
        if order.trust == Trust::File {
            context.believe(&next("CA certificate")?)?;
        }
        if order.has_more {
            let what = "certificate for peers";
            let more = context.certificates(what, &next(what)?)?;
            more.into_iter().try_for_each(|one| context.send_too(one))?;
        }
        Ok(context)
    }

    /// Sets versions, ciphers, and how reading and writing go on.
    fn speak(&self, manner: &Manner) -> Result<(), String> {
        let (library, at) = (self.library, self.at.as_ptr());
        let (least, without) = versions(&manner.protocols)?;
        let always = option::IGNORE_UNEXPECTED_EOF
            | option::NO_TICKET
            | option::NO_COMPRESSION
            | option::NO_RENEGOTIATION
            | option::NO_SSL3;
        // SAFETY: the context is there, and these take numbers.
        unsafe {
            (library.SSL_CTX_set_options)(at, always | without);
            (library.SSL_CTX_ctrl)(at, ctrl::MODE, MODES, null_mut());
            (library.SSL_CTX_ctrl)(at, ctrl::CLEAR_MODE, AUTO_RETRY, null_mut());
            (library.SSL_CTX_ctrl)(at, ctrl::SESSION_CACHE_MODE, 0, null_mut());
            (library.SSL_CTX_ctrl)(at, ctrl::MIN_PROTO_VERSION, least, null_mut());
        }
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let ciphers = if manner.ciphers.is_empty() { CIPHERS } else { &manner.ciphers };
        let list = text(ciphers)?;
        // SAFETY: the context is there, and the text ends with a zero byte.
        if unsafe { (library.SSL_CTX_set_cipher_list)(at, list.as_ptr()) } != 1 {
            return Err(self.wrong(&format!("ciphers '{ciphers}'")));
        }
        let suites = text(&manner.ciphersuites)?;
        if suites.is_empty() {
            return Ok(());
        }
        // SAFETY: as above.
        if unsafe { (library.SSL_CTX_set_ciphersuites)(at, suites.as_ptr()) } != 1 {
            return Err(self.wrong(&format!("ciphersuites '{}'", manner.ciphersuites)));
        }
        Ok(())
    }

    /// Has this be our certificate: the first of the file; the others are sent with it.
    fn present(&self, pem: &[u8]) -> Result<(), String> {
        let mut all = self.certificates("certificate", pem)?.into_iter();
        let own = all.next().ok_or_else(|| self.wrong("certificate"))?;
        // SAFETY: both are there; the context takes a reference of its own.
        if unsafe { (self.library.SSL_CTX_use_certificate)(self.at.as_ptr(), own.at.as_ptr()) } != 1
        {
            return Err(self.wrong("certificate"));
        }
        all.try_for_each(|one| self.send_too(one))
    }

    fn send_too(&self, one: Certificate) -> Result<(), String> {
        let (context, certificate) = (self.at.as_ptr(), one.at.as_ptr());
        // SAFETY: both are there. Where it succeeds the certificate is the context's.
        let sent =
            unsafe { (self.library.SSL_CTX_ctrl)(context, ctrl::EXTRA_CHAIN_CERT, 0, certificate) };
        if sent != 1 {
            return Err(self.wrong("certificate"));
        }
        std::mem::forget(one);
        Ok(())
    }

    fn use_key(&self, pem: &[u8]) -> Result<(), String> {
        let (library, at) = (self.library, self.at.as_ptr());
        let file = Bio::of(library, pem)?;
        // SAFETY: the buffer is there; nobody is asked for a password.
        let key = unsafe {
            (library.PEM_read_bio_PrivateKey)(
                file.at.as_ptr(),
                null_mut(),
                Some(no_password),
                null_mut(),
            )
        };
        let Some(key) = NonNull::new(key) else { return Err(self.wrong("private key")) };
        // SAFETY: both are there; the context takes a reference of its own, and ours is given back.
        let is_used = unsafe {
            let is_used = (library.SSL_CTX_use_PrivateKey)(at, key.as_ptr());
            (library.EVP_PKEY_free)(key.as_ptr());
            is_used == 1 && (library.SSL_CTX_check_private_key)(at) == 1
        };
        if is_used { Ok(()) } else { Err(self.wrong("private key and certificate")) }
    }

    /// Has peers be believed whose certificates are by one of these.
    fn believe(&self, pem: &[u8]) -> Result<(), String> {
        let (library, at) = (self.library, self.at.as_ptr());
        for one in self.certificates("CA certificate", pem)? {
            // SAFETY: all of them are there; the store and the context take references of their own.
            unsafe {
                (library.X509_STORE_add_cert)(
                    (library.SSL_CTX_get_cert_store)(at),
                    one.at.as_ptr(),
                );
                (library.SSL_CTX_add_client_CA)(at, one.at.as_ptr());
            }
        }
        // SAFETY: the context is there, and no function of ours is called.
        unsafe { (library.SSL_CTX_set_verify)(at, VERIFY, null_mut()) };
        Ok(())
    }

    /// The certificates of a file, of which there is one at least. Where one of them is damaged, none is
    /// taken: with those before it some peers would be believed, and others not.
    fn certificates(&self, what: &str, pem: &[u8]) -> Result<Vec<Certificate>, String> {
        let file = Bio::of(self.library, pem)?;
        let mut all = Vec::new();
        while let Some(one) = self.next_certificate(&file) {
            if all.len() >= CERTIFICATES {
                return Err(format!("{what}: its file has more than {CERTIFICATES} certificates"));
            }
            all.push(one);
        }
        if all.is_empty() {
            return Err(self.wrong(what));
        }
        if !self.library.is_without_start_line() {
            return Err(self.wrong(&format!("{what}, number {} of its file", all.len() + 1)));
        }
        // That the file has come to its end is not to be told as the reason for what goes wrong later.
        self.library.forget_errors();
        Ok(all)
    }

    fn next_certificate(&self, file: &Bio<'_>) -> Option<Certificate> {
        let library = self.library;
        // SAFETY: the buffer is there; nobody is asked for a password.
        let at = unsafe {
            (library.PEM_read_bio_X509)(file.at.as_ptr(), null_mut(), Some(no_password), null_mut())
        };
        Some(Certificate { library, at: NonNull::new(at)? })
    }

    /// What is wrong with something that was set.
    fn wrong(&self, what: &str) -> String {
        let reason = self.library.reason().unwrap_or_else(|| "it is not understood".to_owned());
        format!("{what}: {reason}")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it is there, and connections that are made of it have references of their own.
        unsafe { (self.library.SSL_CTX_free)(self.at.as_ptr()) };
    }
}

/// `X509`.
struct Certificate {
    library: &'static Functions,
    at: NonNull<std::ffi::c_void>,
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // SAFETY: it is there, and the reference is ours.
        unsafe { (self.library.X509_free)(self.at.as_ptr()) };
    }
}

/// `BIO`: bytes that are read or written as a file is.
pub struct Bio<'b> {
    library: &'static Functions,
    pub at: NonNull<std::ffi::c_void>,
    _bytes: &'b [u8],
}

impl<'b> Bio<'b> {
    /// These, to be read.
    pub fn of(library: &'static Functions, bytes: &'b [u8]) -> Result<Self, String> {
        // SAFETY: the bytes are there as long as the value that is made.
        let at = unsafe { (library.BIO_new_mem_buf)(bytes.as_ptr(), length(bytes)) };
        Self::at(library, at, bytes)
    }

    /// None yet.
    pub fn new(library: &'static Functions) -> Result<Self, String> {
        // SAFETY: the method is the library's own.
        let at = unsafe { (library.BIO_new)((library.BIO_s_mem)()) };
        Self::at(library, at, &[])
    }

    fn at(library: &'static Functions, at: Ptr, bytes: &'b [u8]) -> Result<Self, String> {
        let at = NonNull::new(at).ok_or("no memory")?;
        library.forget_errors();
        Ok(Self { library, at, _bytes: bytes })
    }
}

impl Drop for Bio<'_> {
    fn drop(&mut self) {
        // SAFETY: it is there, and nobody else has it.
        unsafe { (self.library.BIO_free)(self.at.as_ptr()) };
    }
}

/// All of a file.
fn read(file: &File) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; FILE];
    let mut len = 0;
    loop {
        let rest = bytes.get_mut(len..).unwrap_or_default();
        let offset = u64::try_from(len).unwrap_or(u64::MAX);
        match file.read_at(rest, offset).map_err(|error| error.to_string())? {
            0 if rest.is_empty() => return Err(format!("it has more than {FILE} bytes")),
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// The oldest version that is spoken, 0: the oldest that there is, and the options that leave out others.
fn versions(list: &str) -> Result<(c_long, u64), String> {
    let known = [
        ("TLSv1", option::NO_TLS1),
        ("TLSv1.1", option::NO_TLS1_1),
        ("TLSv1.2", option::NO_TLS1_2),
        ("TLSv1.3", option::NO_TLS1_3),
    ];
    let mut without = known.iter().fold(0, |all, (_, bit)| all | bit);
    let every = without;
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let (name, has_later) = word.strip_suffix('+').map_or((word, false), |name| (name, true));
        let at = known.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
        let at = at.ok_or_else(|| {
            format!("protocol '{word}': expected TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")
        })?;
        let count = if has_later { known.len() } else { 1 };
        known.iter().skip(at).take(count).for_each(|(_, bit)| without &= !bit);
    }
    Ok(if without == every { (c_long::from(TLS1_2), 0) } else { (0, without) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_were_set() {
        let [old, middle, late] = [option::NO_TLS1, option::NO_TLS1_1, option::NO_TLS1_2];
        assert_eq!(versions(""), Ok((0x0303, 0)));
        assert_eq!(versions("TLSv1.2,TLSv1.3"), Ok((0, old | middle)));
        assert_eq!(versions("TLSv1.2+"), Ok((0, old | middle)));
        assert_eq!(versions("tlsv1.3"), Ok((0, old | middle | late)));
        assert!(versions("SSLv3").unwrap_err().contains("'SSLv3': expected TLSv1"));
    }
}
