// A guest kernel that means harm: random values to every port and every device address, for a given number of rounds.
//
//   gcc -O1 $(cat random_guest.flags) -DROUNDS=2000 -o random_guest random_guest.c
//
// A register hit by chance does nothing to a device that nobody has started. So the guest first sets every virtio device
// up as it should be, each queue with rings in its memory, and then writes into the rings as well; every so often it
// starts over. At its end it rings the lab's doorbell for a request where no memory is.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define DEVICES 0xd0000000ul
#define PAGE 4096ul
// Device pages to try: one more than the machine has.
#define PAGES 7
#define QUEUES 3
// Behind this image: three page tables, then four pages for every queue.
#define TABLES 0x400000ul
#define RINGS 0x800000ul
// Where buffers of requests are: one in eight lies elsewhere.
#define BUFFERS 0x1000000ul
// Everything from here to 4 GiB is devices, or nothing.
#define MEMORY 0x4000000ul
// Rounds between two set-ups.
#define AGAIN 128

static u64 state = 0x9e3779b97f4a7c15ul;

static u64 next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static void in8(u16 port) { u8 value; __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); }
static void in16(u16 port) { u16 value; __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port)); }
static void in32(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); }

#define AT(type, address) (*(volatile type *)(address))

// A string instruction: many values in one exit. From the stack or into it, whatever is there.
static void strings(u16 port) {
    u8 buffer[64];
    void *at = buffer;
    u64 count = 1 + next() % 64;
    if (next() & 1)
        __asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(port) : "memory");
    else
        __asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(port) : "memory");
}

// Ports that end the machine, or whose waiting is no fault: the lab's own, and the reset port, one value in 256.
static int ends(u16 port) { return (port & 0xffc0) == 0xc00 || (port >= 0x61 && port <= 0x64); }

static void a_port(void) {
    u64 value = next();
    u16 port = value >> 32;
    // Every other time where PC devices are.
    if (value & 1)
        port &= 0xfff;
    if (ends(port))
        return;
    switch (value >> 1 & 7) {
    case 0: out8(port, value); break;
    case 1: out16(port, value >> 8); break;
    case 2: out32(port, value >> 8); break;
    case 3: in8(port); break;
    case 4: in16(port); break;
    case 5: in32(port); break;
    case 6: strings(port); break;
    // The keyboard controller, and the serial port with its divisor latch open: nothing is printed.
    default: out8(0x64, (u8)(value >> 8) == 0xfe ? 0 : value >> 8); in8(0x60); out8(0x3fb, 0x80 | value >> 8); out8(0x3f8 + (value >> 16) % 3, value >> 24); in8(0x3fa + (value >> 16) % 5);
    }
}

static void an_address(void) {
    u64 value = next(), where = next();
    u64 address = DEVICES + where % (PAGES * PAGE);
    // Half the time the registers, a quarter of it where a register can be, an eighth anywhere above RAM.
    if (where >> 32 & 1)
        address = DEVICES + (where >> 16) % PAGES * PAGE + (where & 0x1ff);
    if (where >> 33 & 1)
        address &= ~3ul;
    if ((where >> 34 & 7) == 0)
        address = MEMORY + (where & 0x7fffffff) % 0xbc000000ul;
    switch (value & 7) {
    case 0: AT(u8, address) = value; break;
    case 1: AT(u16, address) = value; break;
    case 2: AT(u32, address) = value; break;
    case 3: AT(u64, address) = value; break;
    case 4: AT(u8, address); break;
    case 5: AT(u16, address); break;
    case 6: AT(u32, address); break;
    default: AT(u64, address);
    }
}

static u64 rings(u64 page, u64 queue) { return RINGS + (page * QUEUES + queue) * 4 * PAGE; }

static void set_up(u64 page) {
    u64 device = DEVICES + page * PAGE;
    AT(u32, device + 0x70) = 0;
    AT(u32, device + 0x70) = 1;
    AT(u32, device + 0x70) = 3;
    for (u32 half = 0; half < 2; half++) {
        AT(u32, device + 0x14) = half;
        u32 offered = AT(u32, device + 0x10);
        AT(u32, device + 0x24) = half;
        AT(u32, device + 0x20) = offered;
    }
    AT(u32, device + 0x70) = 0xb;
    for (u32 queue = 0; queue < QUEUES; queue++) {
        u64 at = rings(page, queue);
        AT(u32, device + 0x30) = queue;
        AT(u32, device + 0x38) = 8;
        AT(u32, device + 0x80) = at;
        AT(u32, device + 0x84) = 0;
        AT(u32, device + 0x90) = at + PAGE;
        AT(u32, device + 0x94) = 0;
        AT(u32, device + 0xa0) = at + 2 * PAGE;
        AT(u32, device + 0xa4) = 0;
        AT(u32, at + PAGE) = 0;
        AT(u32, at + 2 * PAGE) = 0;
        AT(u32, device + 0x44) = 1;
    }
    AT(u32, device + 0x70) = 0xf;
}

// One descriptor, perhaps another, one place of the available ring, and the notification.
static void a_request(void) {
    u64 choice = next(), page = choice % PAGES, queue = (choice >> 8) % QUEUES, at = rings(page, queue);
    for (u64 count = 1 + (choice >> 12) % 3; count; count--) {
        u64 value = next(), slot = at + value % 8 * 16;
        AT(u64, slot) = (value >> 8 & 7) ? BUFFERS + (value >> 16 & 0xffff0) : value;
        AT(u32, slot + 8) = (value >> 11 & 7) ? (value >> 20) % 5000 : value >> 20;
        AT(u16, slot + 12) = value >> 40 & ((value >> 14 & 7) ? 3 : 0xffff);
        AT(u16, slot + 14) = value >> 50 & 7;
    }
    // What the buffers say: the header of a disk's request, or pages for a balloon. A page that is given away comes back as
    // zeros, so none of these is one that this guest runs on (its code, and the boot page tables: 9 to 11).
    static const u32 kinds[4] = {0, 1, 4, 8};
    u64 word = next(), header = BUFFERS + (word & 0xffff0);
    AT(u32, header) = kinds[word >> 20 & 3];
    AT(u32, header + 4) = BUFFERS / PAGE + (word >> 22 & 0xff);
    AT(u64, header + 8) = word >> 30 & 24;
    AT(u16, at + PAGE + 4 + (choice >> 16) % 8 * 2) = choice >> 20 & 7;
    AT(u16, at + PAGE + 2) += (choice >> 24 & 63) ? 1 : choice >> 30;
    AT(u32, DEVICES + page * PAGE + 0x50) = queue;
}

__attribute__((used)) static void run(void) {
    // GiB 1 to 3 as they are: the boot tables end at 1 GiB.
    for (u64 gib = 1; gib < 4; gib++) {
        u64 table = TABLES + (gib - 1) * PAGE;
        for (u64 entry = 0; entry < 512; entry++)
            AT(u64, table + entry * 8) = gib << 30 | entry << 21 | 0x83;
        AT(u64, 0xa000 + gib * 8) = table | 3;
    }
    __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
    for (u32 round = 0; round < ROUNDS; round++) {
        if (round % AGAIN == 0)
            for (u64 page = 0; page < PAGES; page++)
                set_up(page);
        a_port();
        an_address();
        a_request();
    }
    out32(0xc0c, 0xffffffff);
    for (;;)
        out8(0xc08, 0);
}

__attribute__((used, aligned(16))) static u8 stack[16384];

__attribute__((naked, section(".text.start"))) void _start(void) {
    __asm__ volatile("lea stack + 16384(%rip), %rsp; call run");
}
