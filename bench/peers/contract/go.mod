module agentforge.example/peers/contract

go 1.25
