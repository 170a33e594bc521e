// A guest kernel that triple-faults at once: an instruction that does not exist, and no table that says who handles it.
//
//   gcc -O1 $(cat random_guest.flags) -o triple_fault triple_fault.c
__attribute__((naked, section(".text.start"))) void _start(void) { __asm__ volatile("ud2"); }
