//go:build !linux && !windows

package native

func probe() Report { return unsupportedReport("", nil, "") }
