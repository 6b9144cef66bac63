package main

import (
	"strings"
	"testing"
)

func TestOutput(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	const want = `New-Item -Path 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Virtualization\GuestCommunicationServices' -Name '6bbb51c9-7a0c-4bd0-93b5-6a3d5c6bd0f1' | New-ItemProperty -Name ElementName -Value 'HV Socket Demo'
a service that is not registered is denied: true
the host says: hello
the host says: is anybody there?
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
