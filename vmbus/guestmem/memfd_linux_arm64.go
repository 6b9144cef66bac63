package guestmem

// sysMemfdCreate is memfd_create on arm64.
const sysMemfdCreate = 279
