//! A VFIO container: the address space that the devices of a process share, and the groups in it.
//!
//! The kernel forgets all mappings when the last group leaves a container. Memory may outlive
//! that (a pool whose device was closed, until another is opened), so mappings are remembered here
//! and made again with the next first group. That way a device can be given back to the kernel
//! while the process goes on.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::abi;
use super::iova::{IovaSpace, assumed_ranges};
use crate::dma::{AddressSpace, DeviceAddresses};
use crate::foreign;
use crate::huge::HUGE_PAGE;
use crate::mem::{Pages, SharedMemory};
use crate::pci::info::{DeviceInfo, PciAddress};
use crate::pci::physical;
use crate::pci::sysfs::Sysfs;

/// Where the kernel has the container and the groups.
const DIRECTORY: &str = "/dev/vfio";

/// Memory that the devices of a container see.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    vaddr: u64,
    len: u64,
}

/// A group that belongs to this process.
#[derive(Debug)]
struct Group {
    fd: File,
    /// Devices of it that are open.
    users: usize,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<u32, Group>,
    addresses: IovaSpace,
    /// By device address.
    mappings: BTreeMap<u64, Mapping>,
}

/// A container, with an IOMMU or without one.
#[derive(Debug)]
pub struct Container {
    fd: File,
    has_iommu: bool,
    state: Mutex<State>,
}

impl Container {
    /// An empty container, for groups with an IOMMU or for those without one.
    pub fn new(has_iommu: bool) -> Result<Self, String> {
        let path = Path::new(DIRECTORY).join("vfio");
        let fd = open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no {}: load VFIO with 'modprobe vfio-pci'", path.display())
            }
            _ => cannot_open(&path, &cause),
        })?;
        let version = abi::api_version(fd.as_fd()).map_err(|cause| format!("VFIO: {cause}"))?;
        if version != abi::API_VERSION {
            return Err(format!("VFIO has version {version}, expected {}", abi::API_VERSION));
        }
        let kind = if has_iommu { abi::TYPE1V2_IOMMU } else { abi::NO_IOMMU };
        if !abi::has_iommu(fd.as_fd(), kind) {
            return Err(if has_iommu {
                "the kernel's VFIO cannot drive an IOMMU yet: 'modprobe vfio_iommu_type1'".into()
            } else {
                "the kernel's VFIO does not do without an IOMMU".into()
            });
        }
        Ok(Self { fd, has_iommu, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in it is ever half changed where something can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a device whose group is in this container, or comes into it now.
    pub fn open(
        self: &Arc<Self>,
        info: &DeviceInfo,
        sysfs: &Sysfs,
    ) -> Result<(OwnedFd, GroupHandle), String> {
        let id = info.iommu_group.ok_or("it has no IOMMU group")?;
        let name = CString::new(info.address.to_string()).map_err(|error| error.to_string())?;
        let mut state = self.lock();
        if !state.groups.contains_key(&id) {
            let group = self.add(&mut state, id, info.address, sysfs)?;
            state.groups.insert(id, group);
        }
        let group = state.groups.get_mut(&id).ok_or("its group is gone")?;
        group.users += 1;
        let device = abi::group_device(group.fd.as_fd(), &name);
        // Dropping the handle takes the lock, and gives the group back if nobody else uses it.
        drop(state);
        let handle = GroupHandle { container: Arc::clone(self), id };
        let device = device.map_err(|cause| match cause.raw_os_error() {
            Some(libc::EBUSY) => "it is in use already".to_owned(),
            _ => format!("VFIO does not open it: {cause}"),
        })?;
        Ok((device, handle))
    }

    /// Opens a group and puts it into the container.
    fn add(
        &self,
        state: &mut State,
        id: u32,
        address: PciAddress,
        sysfs: &Sysfs,
    ) -> Result<Group, String> {
        let path = group_path(id, self.has_iommu);
        let fd = open(&path).map_err(|cause| match cause.raw_os_error() {
            Some(libc::EBUSY) => format!(
                "another process has IOMMU group {id} ({}): stop it, or give this device to it",
                path.display()
            ),
            Some(libc::ENOENT) => {
                format!("VFIO has no {}; type: ringway devices bind {address}", path.display())
            }
            _ => cannot_open(&path, &cause),
        })?;
        let status = abi::group_status(fd.as_fd())
            .map_err(|cause| format!("IOMMU group {id} gives no status: {cause}"))?;
        if status & abi::GROUP_VIABLE == 0 {
            return Err(not_viable(id, address, sysfs));
        }
        abi::group_set_container(fd.as_fd(), self.fd.as_fd()).map_err(|cause| {
            match cause.raw_os_error() {
                Some(libc::EBUSY | libc::EPERM) => not_viable(id, address, sysfs),
                _ => format!("VFIO does not take IOMMU group {id}: {cause}"),
            }
        })?;
        let ready = self.prepare(state);
        if ready.is_err() {
            let _ = abi::group_unset_container(fd.as_fd());
        }
        ready.map(|()| Group { fd, users: 0 })
    }

    /// After a group has come: the first one decides the type of IOMMU and gets the mappings that
    /// there are; each may have addresses that it cannot do.
    fn prepare(&self, state: &mut State) -> Result<(), String> {
        let fd = self.fd.as_fd();
        let is_first = state.groups.is_empty();
        if is_first {
            let kind = if self.has_iommu { abi::TYPE1V2_IOMMU } else { abi::NO_IOMMU };
            abi::set_iommu(fd, kind).map_err(|cause| iommu_error(&cause))?;
        }
        if !self.has_iommu {
            return Ok(());
        }
        let ranges = abi::iova_ranges(fd).map_err(|cause| format!("IOMMU: {cause}"))?;
        state.addresses.set_ranges(ranges.unwrap_or_else(assumed_ranges));
        if is_first {
            for (iova, Mapping { vaddr, len }) in &state.mappings {
                // SAFETY: as in `insert`: what is noted there has not gone.
                unsafe { abi::map_dma(fd, *vaddr, *iova, *len) }
                    .map_err(|cause| map_error(&cause, *len, *iova))?;
            }
        }
        Ok(())
    }

    /// Maps memory at an address that was taken for it.
    ///
    /// # Safety
    ///
    /// It must be memory of a kind that is shared, and be [removed](Self::remove) before it goes.
    unsafe fn insert(
        &self,
        state: &mut State,
        vaddr: u64,
        iova: u64,
        len: u64,
    ) -> Result<(), String> {
        // Without a group there is no IOMMU to tell; the next first group gets to know it.
        if !state.groups.is_empty() {
            // SAFETY: as the caller says.
            let mapped = unsafe { abi::map_dma(self.fd.as_fd(), vaddr, iova, len) };
            if let Err(cause) = mapped {
                state.addresses.free(iova);
                return Err(map_error(&cause, len, iova));
            }
        }
        state.mappings.insert(iova, Mapping { vaddr, len });
        Ok(())
    }

    /// Takes memory away from the devices.
    fn remove(&self, iova: u64) {
        let mut state = self.lock();
        let Some(mapping) = state.mappings.remove(&iova) else { return };
        let unmapped = if state.groups.is_empty() {
            Ok(())
        } else {
            abi::unmap_dma(self.fd.as_fd(), iova, mapping.len)
        };
        match unmapped {
            Ok(()) => state.addresses.free(iova),
            // The addresses stay taken: devices still reach the memory's pages, which the kernel
            // keeps pinned for that.
            Err(cause) => tracing::error!("cannot unmap memory at {iova:#x} for devices: {cause}"),
        }
    }

    /// One device less uses a group.
    fn release(&self, id: u32) {
        let mut state = self.lock();
        let Some(group) = state.groups.get_mut(&id) else { return };
        group.users = group.users.saturating_sub(1);
        if group.users == 0
            && let Some(group) = state.groups.remove(&id)
        {
            // Closing the file does it as well; all its devices are closed by now.
            let _ = abi::group_unset_container(group.fd.as_fd());
        }
    }
}

impl AddressSpace for Container {
    fn pages(&self) -> Pages {
        if self.has_iommu { Pages::Auto } else { Pages::Huge }
    }

    fn piece_len(&self) -> usize {
        if self.has_iommu { usize::MAX } else { HUGE_PAGE }
    }

    unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
        if !self.has_iommu {
            return physical::addresses(memory);
        }
        let mut state = self.lock();
        let len = memory.len() as u64;
        // IOMMUs have huge pages too; a buffer of many ordinary ones may be made of huge ones.
        let align = if memory.len() >= HUGE_PAGE { HUGE_PAGE } else { memory.page_size() };
        let iova = state.addresses.allocate(len, align as u64).ok_or_else(|| {
            "no addresses are left that the IOMMU and the devices can do".to_owned()
        })?;
        let vaddr = memory.as_ptr().expose_provenance().get() as u64;
        // SAFETY: the caller unmaps it before it goes.
        unsafe { self.insert(&mut state, vaddr, iova, len) }?;
        Ok(DeviceAddresses::Contiguous(iova))
    }

    fn unmap(&self, _memory: &SharedMemory, addresses: &DeviceAddresses) {
        if let DeviceAddresses::Contiguous(iova) = addresses {
            self.remove(*iova);
        }
    }

    unsafe fn map_at(&self, memory: &Arc<foreign::Mapping>, at: u64) -> Result<(), String> {
        if !self.has_iommu {
            return Err("addresses can be chosen behind an IOMMU only".to_owned());
        }
        let (vaddr, len) = (memory.ptr().expose_provenance().get() as u64, memory.len() as u64);
        let page = rustix::param::page_size() as u64;
        if [vaddr, len, at].iter().any(|number| !number.is_multiple_of(page)) {
            return Err(format!(
                "it has {len:#x} bytes from byte {:#x} of a page on; the IOMMU maps whole pages \
                 of {page} bytes",
                vaddr % page
            ));
        }
        let mut state = self.lock();
        if !state.addresses.reserve(at, len) {
            return Err("these addresses are in use, or the IOMMU and the devices cannot do them \
                        (x86 signals interrupts at 0xfee00000 to 0xfeefffff)"
                .to_owned());
        }
        // SAFETY: the caller unmaps it before it goes.
        unsafe { self.insert(&mut state, vaddr, at, len) }
    }

    fn unmap_at(&self, at: u64) {
        self.remove(at);
    }
}

/// A group in use by a device. Dropping it gives the group back when it was the last.
#[derive(Debug)]
pub struct GroupHandle {
    container: Arc<Container>,
    id: u32,
}

impl Drop for GroupHandle {
    fn drop(&mut self) {
        self.container.release(self.id);
    }
}

/// The file of a group.
pub fn group_path(id: u32, has_iommu: bool) -> PathBuf {
    let name = if has_iommu { id.to_string() } else { format!("noiommu-{id}") };
    Path::new(DIRECTORY).join(name)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn cannot_open(path: &Path, cause: &io::Error) -> String {
    let hint = match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run as root, or give your user the file (chown) and locked memory (ulimit -l)"
        }
        _ => "",
    };
    format!("cannot open {}: {cause}{hint}", path.display())
}

/// VFIO gives out whole groups only, since the IOMMU cannot tell their devices apart.
fn not_viable(id: u32, address: PciAddress, sysfs: &Sysfs) -> String {
    let devices = sysfs.group_devices(id);
    let others: Vec<&DeviceInfo> = devices
        .iter()
        .filter(|other| other.address != address)
        .filter(|other| match other.driver.as_deref() {
            None | Some("vfio-pci" | "pci-stub" | "pcieport") => false,
            Some(_) => true,
        })
        .collect();
    if others.is_empty() {
        return format!(
            "IOMMU group {id} is not free for user space, and the kernel does not say \
                        why: see 'dmesg'"
        );
    }
    let name = |other: &&DeviceInfo| {
        format!("{} (driver '{}')", other.address, other.driver.as_deref().unwrap_or("none"))
    };
    let names: Vec<String> = others.iter().map(name).collect();
    let addresses: Vec<String> = others.iter().map(|other| other.address.to_string()).collect();
    let force = if others.iter().all(|other| other.is_network()) { "" } else { " --force" };
    format!(
        "its IOMMU group {id} also has {}, and a group is given to user space as a whole; if the \
         host can do without, type: ringway devices bind {}{force}",
        names.join(", "),
        addresses.join(" ")
    )
}

fn iommu_error(cause: &io::Error) -> String {
    let hint = match cause.raw_os_error() {
        // Interrupts that are not remapped can be faked by devices.
        Some(libc::EPERM) => {
            "; if 'dmesg' says that interrupts are not remapped, and you trust the device: modprobe \
             vfio_iommu_type1 allow_unsafe_interrupts=1"
        }
        _ => "",
    };
    format!("VFIO cannot use this machine's IOMMU: {cause}{hint}")
}

fn map_error(cause: &io::Error, len: u64, iova: u64) -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    match (cause.raw_os_error(), limit) {
        (Some(libc::ENOMEM), Some(limit)) => format!(
            "the limit of locked memory is {} KiB; raise it with 'ulimit -l unlimited' or \
             systemd's LimitMEMLOCK=infinity",
            limit >> 10
        ),
        _ => format!("the IOMMU does not take {len} bytes at {iova:#x}: {cause}"),
    }
}
