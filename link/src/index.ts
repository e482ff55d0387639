export { certificateRequest, issue, keyId, selfSigned, type Validity } from './certificate.ts'
export { linkFault } from './faults.ts'
