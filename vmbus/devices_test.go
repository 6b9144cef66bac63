package vmbus_test

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// TestDevices: the table of vmbus-control.md 10.2, printed form and wire bytes.
func TestDevices(t *testing.T) {
	want := []struct{ name, text, wire string }{
		{"network", "f8615163-df3e-46c5-913f-f2d2f965ed0e", "635161f83edfc546913ff2d2f965ed0e"},
		{"SCSI", "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f", "d96361baa104294db60572e2ffb1dc7f"},
		{"IDE", "32412632-86cb-44a2-9b5c-50d1417354f5", "32264132cb86a2449b5c50d1417354f5"},
		{"Fibre Channel", "2f9bcc4a-0069-4af3-b76b-6fd0be528cda", "4acc9b2f6900f34ab76b6fd0be528cda"},
		{"NetworkDirect", "8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501", "3daf2e8ca732094bab99bd1f1c86b501"},
		{"PCI pass-through", "44c4f61d-4444-4400-9d52-802e27ede19f", "1df6c444444400449d52802e27ede19f"},
		{"video", "da0a7802-e377-4aac-8e77-0558eb1073f8", "02780ada77e3ac4a8e770558eb1073f8"},
		{"keyboard", "f912ad6d-2b17-48ea-bd65-f927a61c7684", "6dad12f9172bea48bd65f927a61c7684"},
		{"mouse", "cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a", "9eb6a8cf4a5bc04cb98b8ba1a1f3f95a"},
		{"dynamic memory", "525074dc-8985-46e2-8057-a307dc18a502", "dc7450528589e2468057a307dc18a502"},
		{"heartbeat", "57164f39-9115-4e78-ab55-382f3bd5422d", "394f16571591784eab55382f3bd5422d"},
		{"KVP", "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6", "e7f4a0a9455a964db8278a841e8c03e6"},
		{"VSS", "35fa2e29-ea23-4236-96ae-3a6ebacba440", "292efa3523ea364296ae3a6ebacba440"},
		{"time sync", "9527e630-d0ae-497b-adce-e80ab0175caf", "30e62795aed07b49adcee80ab0175caf"},
		{"shutdown", "0e0b6031-5213-4934-818b-38d90ced39db", "31600b0e13523449818b38d90ced39db"},
		{"file copy", "34d14be3-dee4-41c8-9ae7-6b174977c192", "e34bd134e4dec8419ae76b174977c192"},
		{"AVMA 1", "f8e65716-3cb3-4a06-9a60-1889c5cccab5", "1657e6f8b33c064a9a601889c5cccab5"},
		{"AVMA 2", "3375baf4-9e15-4b30-b765-67acb10d607b", "f4ba7533159e304bb76567acb10d607b"},
		{"remote desktop", "276aacf4-ac15-426c-98dd-7521ad3f01fe", "f4ac6a2715ac6c4298dd7521ad3f01fe"},
		{"initial machine configuration", "c376c1c3-d276-48d2-90a9-c04748072c60", "c3c176c376d2d24890a9c04748072c60"},
		{"serial", "8b60ccf6-709f-4c11-90b5-229c959a9e6a", "f6cc608b9f70114c90b5229c959a9e6a"},
		{"guest emulation transport", "8dedd1aa-9056-49e4-bfd6-1bf90dc38ef0", "aad1ed8d5690e449bfd61bf90dc38ef0"},
		{"Hyper-V socket", "00000000-facb-11e6-bd58-64006a7986d3", "00000000cbfae611bd5864006a7986d3"},
	}
	require.Len(t, vmbus.Devices(), len(want))
	for i, d := range vmbus.Devices() {
		require.Equal(t, want[i].name, d.Name)
		require.Equal(t, want[i].text, d.Interface.String(), d.Name)
		require.Equal(t, want[i].wire, hex.EncodeToString(d.Interface[:]), d.Name)
		require.Equal(t, d.Name, vmbus.DeviceName(d.Interface))
	}
}

// TestInstances: the well-known instances under the table of 10.2.
func TestInstances(t *testing.T) {
	for text, g := range map[string]vmbus.GUID{
		"242ff919-07db-4180-9c2e-b86cb68c8c55": vmbus.InstanceKVP,
		"b6650ff7-33bc-4840-8048-e0676786f393": vmbus.InstanceShutdown,
		"2dd1ce17-079e-403c-b352-a1921ee207ee": vmbus.InstanceTimeSync,
		"d34b2567-b9b6-42b9-8778-0a4ec0b955bf": vmbus.InstanceKeyboard,
		"58f75a6d-d949-4320-99e1-a2a2576d581c": vmbus.InstanceMouse,
		"5620e0c7-8062-4dce-aeb7-520c7ef76171": vmbus.InstanceVideo,
		"c4e5e7d1-d748-4afc-979d-683167910a55": vmbus.InstanceIMC,
		"d3e4454d-62af-44ec-b851-3170915e5f56": vmbus.InstanceGET,
		"700df40e-b947-4776-b839-d1b0a35af034": vmbus.InstanceCOM1,
		"7e55f4b8-af84-4e98-9f1a-8e8d0bde3744": vmbus.InstanceCOM2,
		"3f158fa1-b0aa-45e9-ba54-9fc73f6c59ec": vmbus.InstanceCOM3,
		"8688a06f-9b53-48ce-b408-7581626228c5": vmbus.InstanceCOM4,
		"ceb1cd55-6a3b-41c5-9473-4dd30624c3d8": vmbus.ClientIDOpenHCL,
	} {
		require.Equal(t, text, g.String())
	}
}

func TestDeviceName(t *testing.T) {
	port5000, err := vmbus.ParseGUID("00001388-facb-11e6-bd58-64006a7986d3")
	require.NoError(t, err)
	require.Equal(t, "Hyper-V socket", vmbus.DeviceName(port5000), "every port of the template is one")
	require.Empty(t, vmbus.DeviceName(vmbus.GUID{1}))
	require.Empty(t, vmbus.DeviceName(vmbus.InstanceKVP), "an instance is no interface")
}

// vmbus-control.md 10.2: instances that are the same on every machine have names,
// which differ; any other has none.
func TestInstanceNames(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range []vmbus.GUID{
		vmbus.InstanceKVP, vmbus.InstanceShutdown, vmbus.InstanceTimeSync, vmbus.InstanceKeyboard, vmbus.InstanceMouse, vmbus.InstanceVideo,
		vmbus.InstanceIMC, vmbus.InstanceGET, vmbus.InstanceCOM1, vmbus.InstanceCOM2, vmbus.InstanceCOM3, vmbus.InstanceCOM4,
	} {
		name := vmbus.InstanceName(g)
		require.NotEmpty(t, name, "%v", g)
		require.False(t, seen[name], name)
		seen[name] = true
	}
	require.Empty(t, vmbus.InstanceName(vmbus.GUID{}))
}
