package oci

// greetSums is what go.sum says of the module that moduleProxy serves.
const greetSums = "example.com/greet v1.0.0 h1:tAWocUsCcjPGAvGcnaUClqTX9dUpONitH9K+ZGcrtsM=\n" +
	"example.com/greet v1.0.0/go.mod h1:WtYf1HGpkE+LZeokCowx6tOFQmTZCdXnYgb2vii/E7E=\n"
