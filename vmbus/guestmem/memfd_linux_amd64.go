package guestmem

// sysMemfdCreate is memfd_create on amd64, which package syscall lacks.
const sysMemfdCreate = 319
