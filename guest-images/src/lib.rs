//! What runs on the inside, built together with whoever embeds it: the lab kernel, the workload,
//! the first process of a Linux guest, and a guest that only prints.

pub mod linux;

/// Start a page, so that whoever maps the bytes can map them in place.
#[repr(C, align(4096))]
struct PageAligned<B: ?Sized>(B);

static KERNEL_BYTES: &PageAligned<[u8]> = &PageAligned(*include_bytes!(env!("LAB_KERNEL")));
static WORKLOAD_BYTES: &PageAligned<[u8]> = &PageAligned(*include_bytes!(env!("LAB_WORKLOAD")));

/// The lab kernel: an ELF file for the Linux 64-bit boot protocol.
pub static KERNEL: &[u8] = &KERNEL_BYTES.0;

/// The workload: a static ELF program for x86-64 Linux. The same bytes run on both sides.
pub static WORKLOAD: &[u8] = &WORKLOAD_BYTES.0;

/// The first process of a Linux guest: a static program that sets up the guest and runs another.
pub static INIT: &[u8] = include_bytes!(env!("LAB_INIT"));

/// A guest kernel that prints lines and does nothing else (`guest-images/printer`).
pub static PRINTER: &[u8] = include_bytes!(env!("LAB_PRINTER"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_images_are_elf_files_on_page_boundaries() {
        for image in [KERNEL, WORKLOAD] {
            assert_eq!(&image[..4], b"\x7fELF");
            assert_eq!(image.as_ptr().addr() % 4096, 0);
        }
    }
}
