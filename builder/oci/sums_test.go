package oci
const greetSums = ""
