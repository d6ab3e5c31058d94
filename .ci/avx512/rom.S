/* The "BIOS": from the reset vector straight into 64-bit mode and into the kernel, which Bochs has
   put into memory. What is at the addresses that are used here comes from emulate.py. */
	.code16
	.globl _start
_start:
	cli
	lgdtl	%cs:gdt - _start
	movl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$0x11000, %eax		/* page tables */
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER: LME */
	xorl	%edx, %edx
	movl	$0x100, %eax
	wrmsr
	movl	$0x80000011, %eax	/* PG, ET, PE */
	movl	%eax, %cr0
	ljmpl	$0x10, $(0xffff0000 + long_mode - _start)
gdt:	.word	0x1f
	.long	0x10000
	.code64
long_mode:
	movl	$0x18, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	movl	$0x8f000, %esp
	movl	$0x18000, %esi		/* boot_params */
	movq	0x10100, %rax		/* the kernel's entry */
	jmp	*%rax
	.org	0xfff0
	.code16
	jmp	_start			/* the reset vector */
	.org	0x10000
