// A pion client that pings an echoing and an unreachable peer, and prints how many pings the first one answered.
//
// Arguments: server, "udp" or "tcp", user name, password, realm, address of the echoing peer, address of the
// unreachable peer, number of pings.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v2"
)

// How long a ping may take on loopback, even on a busy machine.
const patience = 5 * time.Second

func must(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func connect(network, server string) net.PacketConn {
	if network == "tcp" {
		stream, err := net.Dial("tcp", server)
		must(err)
		return turn.NewSTUNConn(stream)
	}
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(err)
	return socket
}

func main() {
	server, network, user, password, realm := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	there, err := net.ResolveUDPAddr("udp", os.Args[6])
	must(err)
	gone, err := net.ResolveUDPAddr("udp", os.Args[7])
	must(err)
	count, err := strconv.Atoi(os.Args[8])
	must(err)

	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server,
		TURNServerAddr: server,
		Conn:           connect(network, server),
		Username:       user,
		Password:       password,
		Realm:          realm,
		LoggerFactory:  logging.NewDefaultLoggerFactory(),
	})
	must(err)
	must(client.Listen())
	relay, err := client.Allocate()
	must(err)
	must(client.CreatePermission(there, gone))

	answered := 0
	buffer := make([]byte, 1500)
	for number := 0; number < count; number++ {
		ping := []byte(fmt.Sprintf("ping %d", number))
		_, err = relay.WriteTo(ping, gone)
		must(err)
		_, err = relay.WriteTo(ping, there)
		must(err)
		must(relay.SetReadDeadline(time.Now().Add(patience)))
		length, from, err := relay.ReadFrom(buffer)
		if err != nil {
			fmt.Printf("ping %d: %v\n", number, err)
			break
		}
		if from.String() == there.String() && bytes.Equal(buffer[:length], ping) {
			answered++
		}
	}
	fmt.Printf("%d of %d answered\n", answered, count)
	must(relay.Close())
	client.Close()
}
