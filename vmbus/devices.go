package vmbus

import "github.com/google/uuid"

// Interface GUIDs of the devices a host may offer. Guests match on these.
// Source: Linux include/linux/hyperv.h; OpenVMM device crates; vmbus-control.md 10.2.
var (
	InterfaceNetwork        = mustGUID("f8615163-df3e-46c5-913f-f2d2f965ed0e")
	InterfaceSCSI           = mustGUID("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f")
	InterfaceIDE            = mustGUID("32412632-86cb-44a2-9b5c-50d1417354f5")
	InterfaceFibreChannel   = mustGUID("2f9bcc4a-0069-4af3-b76b-6fd0be528cda")
	InterfaceNetworkDirect  = mustGUID("8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501")
	InterfacePCI            = mustGUID("44c4f61d-4444-4400-9d52-802e27ede19f")
	InterfaceVideo          = mustGUID("da0a7802-e377-4aac-8e77-0558eb1073f8")
	InterfaceKeyboard       = mustGUID("f912ad6d-2b17-48ea-bd65-f927a61c7684")
	InterfaceMouse          = mustGUID("cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a")
	InterfaceDynamicMemory  = mustGUID("525074dc-8985-46e2-8057-a307dc18a502")
	InterfaceHeartbeat      = mustGUID("57164f39-9115-4e78-ab55-382f3bd5422d")
	InterfaceKVP            = mustGUID("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6")
	InterfaceVSS            = mustGUID("35fa2e29-ea23-4236-96ae-3a6ebacba440")
	InterfaceTimeSync       = mustGUID("9527e630-d0ae-497b-adce-e80ab0175caf")
	InterfaceShutdown       = mustGUID("0e0b6031-5213-4934-818b-38d90ced39db")
	InterfaceFileCopy       = mustGUID("34d14be3-dee4-41c8-9ae7-6b174977c192")
	InterfaceAVMA1          = mustGUID("f8e65716-3cb3-4a06-9a60-1889c5cccab5")
	InterfaceAVMA2          = mustGUID("3375baf4-9e15-4b30-b765-67acb10d607b")
	InterfaceRemoteDesktop  = mustGUID("276aacf4-ac15-426c-98dd-7521ad3f01fe")
	InterfaceIMC            = mustGUID("c376c1c3-d276-48d2-90a9-c04748072c60")
	InterfaceSerial         = mustGUID("8b60ccf6-709f-4c11-90b5-229c959a9e6a")
	InterfaceGET            = mustGUID("8dedd1aa-9056-49e4-bfd6-1bf90dc38ef0")
	InterfaceSocketTemplate = mustGUID("00000000-facb-11e6-bd58-64006a7986d3") // the port is the first group
)

// Instance GUIDs of devices that exist once. A host may choose others.
// Source: vmbus-control.md 10.2; OpenVMM device crates.
var (
	InstanceKVP      = mustGUID("242ff919-07db-4180-9c2e-b86cb68c8c55")
	InstanceShutdown = mustGUID("b6650ff7-33bc-4840-8048-e0676786f393")
	InstanceTimeSync = mustGUID("2dd1ce17-079e-403c-b352-a1921ee207ee")
	InstanceKeyboard = mustGUID("d34b2567-b9b6-42b9-8778-0a4ec0b955bf")
	InstanceMouse    = mustGUID("58f75a6d-d949-4320-99e1-a2a2576d581c")
	InstanceVideo    = mustGUID("5620e0c7-8062-4dce-aeb7-520c7ef76171")
	InstanceIMC      = mustGUID("c4e5e7d1-d748-4afc-979d-683167910a55")
	InstanceGET      = mustGUID("d3e4454d-62af-44ec-b851-3170915e5f56")
	InstanceCOM1     = mustGUID("700df40e-b947-4776-b839-d1b0a35af034")
	InstanceCOM2     = mustGUID("7e55f4b8-af84-4e98-9f1a-8e8d0bde3744")
	InstanceCOM3     = mustGUID("3f158fa1-b0aa-45e9-ba54-9fc73f6c59ec")
	InstanceCOM4     = mustGUID("8688a06f-9b53-48ce-b408-7581626228c5")
)

// InstanceName is the name of a well-known instance, "" for any other GUID.
func InstanceName(g GUID) string {
	switch g {
	case InstanceKVP:
		return "KVP"
	case InstanceShutdown:
		return "shutdown"
	case InstanceTimeSync:
		return "time sync"
	case InstanceKeyboard:
		return "keyboard"
	case InstanceMouse:
		return "mouse"
	case InstanceVideo:
		return "video"
	case InstanceIMC:
		return "initial machine configuration"
	case InstanceGET:
		return "guest emulation transport"
	case InstanceCOM1:
		return "serial, COM1"
	case InstanceCOM2:
		return "serial, COM2"
	case InstanceCOM3:
		return "serial, COM3"
	case InstanceCOM4:
		return "serial, COM4"
	}
	return ""
}

// ClientIDOpenHCL is the InitiateContact2.ClientID of OpenHCL, a paravisor.
var ClientIDOpenHCL = mustGUID("ceb1cd55-6a3b-41c5-9473-4dd30624c3d8")

// A Device is a well-known interface and its name.
type Device struct {
	Name      string
	Interface GUID
}

// Devices returns the well-known interfaces, in the order of vmbus-control.md 10.2.
func Devices() []Device {
	return []Device{
		{"network", InterfaceNetwork},
		{"SCSI", InterfaceSCSI},
		{"IDE", InterfaceIDE},
		{"Fibre Channel", InterfaceFibreChannel},
		{"NetworkDirect", InterfaceNetworkDirect},
		{"PCI pass-through", InterfacePCI},
		{"video", InterfaceVideo},
		{"keyboard", InterfaceKeyboard},
		{"mouse", InterfaceMouse},
		{"dynamic memory", InterfaceDynamicMemory},
		{"heartbeat", InterfaceHeartbeat},
		{"KVP", InterfaceKVP},
		{"VSS", InterfaceVSS},
		{"time sync", InterfaceTimeSync},
		{"shutdown", InterfaceShutdown},
		{"file copy", InterfaceFileCopy},
		{"AVMA 1", InterfaceAVMA1},
		{"AVMA 2", InterfaceAVMA2},
		{"remote desktop", InterfaceRemoteDesktop},
		{"initial machine configuration", InterfaceIMC},
		{"serial", InterfaceSerial},
		{"guest emulation transport", InterfaceGET},
		{"Hyper-V socket", InterfaceSocketTemplate},
	}
}

// DeviceName is the name of a well-known interface; every port of the Hyper-V
// socket template counts as one. For any other GUID it returns "".
func DeviceName(g GUID) string {
	template := InterfaceSocketTemplate
	if [12]byte(g[4:]) == [12]byte(template[4:]) {
		g = template
	}
	for _, d := range Devices() {
		if d.Interface == g {
			return d.Name
		}
	}
	return ""
}

// mustGUID is for the literals of this file.
func mustGUID(text string) GUID { return GUIDFromUUID(uuid.MustParse(text)) }
