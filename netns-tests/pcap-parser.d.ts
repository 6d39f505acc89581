// pcap-parser brings no types of its own.
declare module 'pcap-parser' {
  interface Parser {
    on(event: 'packet', listener: (packet: { data: Buffer }) => void): this;
    on(event: 'end', listener: () => void): this;
    on(event: 'error', listener: (error: Error) => void): this;
  }
  const pcapParser: { parse(file: string): Parser };
  export default pcapParser;
}
